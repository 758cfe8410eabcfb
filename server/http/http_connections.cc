#include "server/http/http_connections.h"

#include <chrono>
#include <utility>

namespace attend::server {
namespace {

using List = std::list<std::shared_ptr<HttpConnection>>;

// Null: the site has none there.
HttpConnection* NewestOf(const List& connections, const std::string& site) {
  HttpConnection* newest = nullptr;
  for (const auto& connection : connections) {
    if (connection->place.site != site) continue;
    if (newest == nullptr || newest->place.number < connection->place.number) newest = connection.get();
  }
  return newest;
}

}  // namespace

bool HttpConnections::MakeRoomFor(const std::string& site) {
  if (size() < most_) return true;
  HttpConnection* const victim = Victim(site);
  if (victim == nullptr) return false;
  victim->Close();
  return true;
}

HttpConnection* HttpConnections::Victim(const std::string& site) const {
  const auto count = counts_.find(site);
  if (!site.empty() && count != counts_.end() && count->second >= share_) return LongestWaiting(&site);
  const std::string* const largest = Largest();
  if (largest == nullptr) return LongestWaiting(/*site=*/nullptr);
  HttpConnection* const waiting = NewestOf(waiting_, *largest);
  return waiting != nullptr ? waiting : NewestOf(busy_, *largest);
}

HttpConnection* HttpConnections::LongestWaiting(const std::string* site) const {
  for (const auto& connection : waiting_) {
    if (site == nullptr || connection->place.site == *site) return connection.get();
  }
  return nullptr;
}

const std::string* HttpConnections::Largest() const {
  const std::string* largest = nullptr;
  std::size_t most = share_;
  for (const auto& [site, count] : counts_) {
    if (site.empty() || count <= most) continue;
    largest = &site;
    most = count;
  }
  return largest;
}

void HttpConnections::Add(std::shared_ptr<HttpConnection> connection, std::string site) {
  ++counts_[site];
  HttpConnection::Place& place = connection->place;
  place.site = std::move(site);
  place.number = next_number_++;
  place.position = waiting_.insert(waiting_.end(), std::move(connection));
}

void HttpConnections::SetBusy(HttpConnection& connection) {
  busy_.splice(busy_.end(), waiting_, connection.place.position);
  connection.place.is_busy = true;
}

void HttpConnections::SetWaiting(HttpConnection& connection) {
  waiting_.splice(waiting_.end(), connection.place.is_busy ? busy_ : waiting_, connection.place.position);
  connection.place.is_busy = false;
}

void HttpConnections::Remove(HttpConnection& connection) {
  const auto count = counts_.find(connection.place.site);
  if (--count->second == 0) counts_.erase(count);
  (connection.place.is_busy ? busy_ : waiting_).erase(connection.place.position);
}

void HttpConnections::CloseStalled(HttpServer::Duration patience) {
  const auto since = std::chrono::steady_clock::now() - patience;
  for (const List* const list : {&busy_, &waiting_}) {
    for (auto next = list->begin(); next != list->end();) {
      HttpConnection& connection = **next++;  // Closing it takes it from the list.
      if (connection.IsWritingSince(since)) connection.Close();
    }
  }
}

void HttpConnections::CloseAll() {
  while (!waiting_.empty()) waiting_.front()->Close();
  while (!busy_.empty()) busy_.front()->Close();
}

}  // namespace attend::server
