#include "server/layers/layer_registry.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/identity/tenant.h"
#include "server/layers/layer.h"

namespace attend::server {
namespace {

constexpr char kRule[] =
    "a layer's name has 1 to 128 characters, each of a-z, 0-9, '.', '_', '/' and '-', the first a letter or digit, "
    "without '..', without '//' and without '/' at its end";

bool IsLetterOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool IsNameCharacter(char c) { return IsLetterOrDigit(c) || c == '.' || c == '_' || c == '/' || c == '-'; }

// `wrong` is the end of a sentence that starts with the field.
absl::Status NotAName(std::string_view field, const std::string& wrong) {
  return InvalidField(field, absl::StrCat(std::string(field), wrong, "; ", kRule));
}

// What is wrong with `name`, which is not too long, as NotAName says it; empty when nothing is.
std::string WhatIsWrong(std::string_view name) {
  if (name.empty()) return " is empty";
  const auto wrong = std::find_if_not(name.begin(), name.end(), IsNameCharacter);
  if (wrong != name.end()) {
    const std::string byte = absl::CHexEscape(absl::string_view(&*wrong, 1));
    return absl::StrCat(" has '", byte, "' at position ", wrong - name.begin());
  }
  std::string quoted = absl::StrCat(" is '", absl::string_view(name.data(), name.size()), "'");
  if (!IsLetterOrDigit(name.front())) return quoted;
  if (name.find("..") != std::string_view::npos || name.find("//") != std::string_view::npos) return quoted;
  return name.back() == '/' ? quoted : "";
}

}  // namespace

absl::Status CheckLayerNameLength(std::size_t bytes, std::string_view field) {
  return bytes <= kMaxLayerNameBytes ? absl::OkStatus() : NotAName(field, absl::StrCat(" has ", bytes, " bytes"));
}

absl::Status CheckLayerName(std::string_view name, std::string_view field) {
  if (absl::Status length = CheckLayerNameLength(name.size(), field); !length.ok()) return length;
  const std::string wrong = WhatIsWrong(name);
  return wrong.empty() ? absl::OkStatus() : NotAName(field, wrong);
}

std::string LayerFileName(const LayerKey& key) {
  std::string file = key.name;
  std::replace(file.begin(), file.end(), '/', '%');
  return absl::StrCat(key.tenant == kSharedTenant ? "" : key.tenant + "@", file, ".layer");
}

absl::Status LayerNotFound(std::string_view name, std::string_view field) {
  const std::string text(name);
  return WithDetails(
      absl::NotFoundError(
          absl::StrCat("this server has no layer '", text, "'; LayerService.ListLayers says which it has")),
      {.reason = reason::kLayerNotFound, .field = std::string(field), .metadata = {{"layer_name", text}}});
}

std::string LayerRegistry::TableName(std::string_view tenant, std::string_view name) {
  std::string key;
  key.reserve(tenant.size() + 1 + name.size());
  return key.append(tenant).append(1, '/').append(name);
}

LayerRegistry::Value LayerRegistry::Resolve(std::string_view tenant, std::string_view name) const {
  Value own = layers_.Find(TableName(tenant, name));
  if (own != nullptr || tenant == kSharedTenant) return own;
  return layers_.Find(TableName(kSharedTenant, name));
}

std::vector<LayerRegistry::Value> LayerRegistry::Page(std::string_view tenant, std::string_view prefix,
                                                      std::string_view after, std::size_t most) const {
  const auto page_of = [&](std::string_view owner) {
    return layers_.Page(TableName(owner, prefix), after.empty() ? "" : TableName(owner, after), most);
  };
  std::vector<Value> own = page_of(tenant);
  if (tenant == kSharedTenant) return own;
  std::vector<Value> page;
  const std::vector<Value> shared = page_of(kSharedTenant);
  // Where both have a name, the first range's counts.
  std::set_union(own.begin(), own.end(), shared.begin(), shared.end(), std::back_inserter(page),
                 [](const Value& a, const Value& b) { return a->description().name() < b->description().name(); });
  if (page.size() > most) page.resize(most);
  return page;
}

}  // namespace attend::server
