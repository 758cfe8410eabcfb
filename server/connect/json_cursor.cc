#include "server/connect/json_cursor.h"

namespace attend::server {
namespace {

bool IsSpace(int c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

bool IsDigit(int c) { return c >= '0' && c <= '9'; }

}  // namespace

JsonCursor::JsonCursor(grpc::ByteBuffer& json) {
  if (json.Valid() && !json.Dump(&pieces_).ok()) pieces_.clear();
  json.Clear();
}

bool JsonCursor::NextPiece() {
  before_ = offset();
  begin_ = at_ = end_ = nullptr;
  if (next_ > 0) pieces_[next_ - 1] = grpc::Slice();
  while (next_ < pieces_.size()) {
    const grpc::Slice& piece = pieces_[next_++];
    if (piece.size() == 0) continue;
    begin_ = at_ = piece.begin();
    end_ = piece.end();
    return true;
  }
  return false;
}

int JsonCursor::PeekToken() {
  int next = Peek();
  for (; IsSpace(next); next = Peek()) ++at_;
  return next;
}

bool JsonCursor::Take(char wanted) {
  if (PeekToken() != wanted) return false;
  ++at_;
  return true;
}

bool JsonCursor::TakeWord(const char* word) {
  if (PeekToken() != *word) return false;
  for (; *word != '\0'; ++word) {
    if (Next() != *word) return false;
  }
  return true;
}

bool JsonCursor::TakeNumber(std::string& text) {
  text.clear();
  PeekToken();
  const auto take = [this, &text] { text += static_cast<char>(Next()); };
  const auto take_digits = [&] {
    const std::size_t before = text.size();
    while (IsDigit(Peek()) && text.size() <= kMaxToken) take();
    return text.size() > before;
  };
  if (Peek() == '-') take();
  if (Peek() == '0') {
    take();
  } else if (!take_digits()) {
    return false;
  }
  if (Peek() == '.') {
    take();
    if (!take_digits()) return false;
  }
  if (Peek() == 'e' || Peek() == 'E') {
    take();
    if (Peek() == '+' || Peek() == '-') take();
    if (!take_digits()) return false;
  }
  return text.size() <= kMaxToken && !IsDigit(Peek());
}

int JsonCursor::NextOfString() {
  if (escaped_next_ < escaped_size_) return escaped_[escaped_next_++];
  const int next = Next();
  if (next == '"') return kEnd;
  if (next == '\\') return TakeEscape() ? NextOfString() : kWrong;
  return next < 0x20 ? kWrong : next;  // Also at the end of the text.
}

bool JsonCursor::TakeHex(unsigned& value) {
  value = 0;
  for (int i = 0; i < 4; ++i) {
    const int c = Next();
    const int digit = IsDigit(c)             ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return false;
    value = value * 16 + static_cast<unsigned>(digit);
  }
  return true;
}

void JsonCursor::AppendUtf8(unsigned code) {
  const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr unsigned kLeads[] = {0, 0xC0, 0xE0, 0xF0};
  escaped_[0] = static_cast<unsigned char>(kLeads[more] | (code >> (6 * more)));
  for (int i = 1; i <= more; ++i) {
    escaped_[i] = static_cast<unsigned char>(0x80 | ((code >> (6 * (more - i))) & 0x3F));
  }
  escaped_next_ = 0;
  escaped_size_ = 1 + more;
}

// After the backslash.
bool JsonCursor::TakeEscape() {
  constexpr char kNames[] = "\"\\/bfnrt";
  constexpr char kMeanings[] = "\"\\/\b\f\n\r\t";
  const int name = Next();
  for (int i = 0; kNames[i] != '\0'; ++i) {
    if (name != kNames[i]) continue;
    AppendUtf8(static_cast<unsigned char>(kMeanings[i]));
    return true;
  }
  unsigned code = 0;
  if (name != 'u' || !TakeHex(code)) return false;
  if (code >= 0xD800 && code < 0xDC00) {
    unsigned low = 0;
    if (Next() != '\\' || Next() != 'u' || !TakeHex(low) || low < 0xDC00 || low > 0xDFFF) return false;
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code <= 0xDFFF) {
    return false;
  }
  AppendUtf8(code);
  return true;
}

bool JsonCursor::TakeString(std::string& text) {
  text.clear();
  for (int next = NextOfString(); next != kEnd; next = NextOfString()) {
    if (next == kWrong || text.size() == kMaxToken) return false;
    text += static_cast<char>(next);
  }
  return true;
}

}  // namespace attend::server
