// The characters of a JSON text that came in pieces, one after the other, and the tokens that they make.
//
// Pieces are let go of as they are read, so that a text and what is made of it are not both in memory.
//
// Thread-compatible.
#ifndef ATTEND_SERVER_CONNECT_JSON_CURSOR_H_
#define ATTEND_SERVER_CONNECT_JSON_CURSOR_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <string>
#include <vector>

namespace attend::server {

class JsonCursor {
 public:
  static constexpr int kEnd = -1;    // Of the text, or of a string.
  static constexpr int kWrong = -2;  // No string as JSON has them.

  // Takes the text out of `json`, which is empty afterwards.
  explicit JsonCursor(grpc::ByteBuffer& json);

  // The next character, kEnd at the end.
  int Peek() { return at_ != end_ || NextPiece() ? static_cast<int>(*at_) : kEnd; }
  int Next() {
    const int next = Peek();
    if (next != kEnd) ++at_;
    return next;
  }
  // The next character that is no white space; Peek then gives the same.
  int PeekToken();
  // Whether the next token begins with `wanted`, which is taken then.
  bool Take(char wanted);
  // Whether the next token is this word, which is taken. On false, some of it may be.
  bool TakeWord(const char* word);
  // The number that comes next, as it is written; false for none, and for one of more than kMaxToken characters.
  bool TakeNumber(std::string& text);

  // After the opening quote: the next byte of the string as UTF-8, without escapes; kEnd when the closing quote has
  // been taken. Whether they are UTF-8 is not looked at, except that escaped surrogates come in pairs.
  int NextOfString();
  // The whole string, of at most kMaxToken bytes, after its opening quote.
  bool TakeString(std::string& text);

  // How many characters were taken.
  std::size_t offset() const { return before_ + static_cast<std::size_t>(at_ - begin_); }

  static constexpr std::size_t kMaxToken = 1024;

 private:
  bool NextPiece();
  bool TakeEscape();
  bool TakeHex(unsigned& value);
  void AppendUtf8(unsigned code);

  std::vector<grpc::Slice> pieces_;
  std::size_t next_ = 0;                  // Among the pieces.
  std::size_t before_ = 0;                // Characters of the pieces before this one.
  const unsigned char* begin_ = nullptr;  // Of this piece.
  const unsigned char* at_ = nullptr;
  const unsigned char* end_ = nullptr;
  unsigned char escaped_[4] = {};  // What an escape stands for, and has not been given.
  int escaped_size_ = 0;
  int escaped_next_ = 0;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_JSON_CURSOR_H_
