// README's C++ example as it stands there, made a program by the build: readme_snippet HOST:PORT
#include <iostream>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "client/lib/client.h"
#include "client/lib/tensor.h"

namespace attend::client {
namespace {

int Run(const std::string& endpoint) {
  const std::vector<float> embeddings(5 * 64, 1.0f);
#include "readme_snippet.inc"
  if (!placed.ok() || !answer.ok()) {
    std::cerr << placed << '\n' << answer.status() << '\n';
    return 1;
  }
  std::cout << "output " << ShapeString(answer->response.output().shape()) << '\n';
  return 0;
}

}  // namespace
}  // namespace attend::client

int main(int, char** argv) { return attend::client::Run(argv[1]); }
