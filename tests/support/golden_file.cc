#include "tests/support/golden_file.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace attend::testing {
namespace {

template <typename T>
std::vector<T> Elements(const std::string& bytes) {
  std::vector<T> elements(bytes.size() / sizeof(T));
  std::memcpy(elements.data(), bytes.data(), elements.size() * sizeof(T));
  return elements;
}

GoldenTensor ReadTensor(const nlohmann::json& entry, const std::string& data) {
  GoldenTensor tensor;
  tensor.shape = entry.at("shape").get<std::vector<std::int64_t>>();
  const std::size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
  const std::string bytes = data.substr(begin, end - begin), type = entry.at("dtype");
  if (type == "F32") {
    tensor.floats = Elements<float>(bytes);
    tensor.doubles.assign(tensor.floats.begin(), tensor.floats.end());
  } else if (type == "F64") {
    tensor.doubles = Elements<double>(bytes);
  } else if (type == "I64") {
    tensor.int64s = Elements<std::int64_t>(bytes);
  } else {
    throw std::runtime_error("unexpected type " + type);
  }
  return tensor;
}

}  // namespace

GoldenFile ReadGoldenFile(const std::string& name) {
  const std::string path = std::string(ATTEND_TEST_DATA) + "/golden/" + name + ".safetensors";
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  const std::string bytes(std::istreambuf_iterator<char>(stream), {});
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  const nlohmann::json header = nlohmann::json::parse(bytes.substr(sizeof(header_size), header_size));
  const std::string data = bytes.substr(sizeof(header_size) + header_size);
  GoldenFile file;
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") {
      file.metadata = entry.get<std::map<std::string, std::string>>();
    } else {
      file.tensors[key] = ReadTensor(entry, data);
    }
  }
  return file;
}

}  // namespace attend::testing
