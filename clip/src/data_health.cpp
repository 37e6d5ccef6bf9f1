#include "clip/src/data_health.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>

namespace twinlens {
namespace {

// A reason without what differs from sample to sample: the part before the first `;` or `'`.
std::string kind_of(const std::string& reason) {
  return reason.substr(0, std::min({reason.find(';'), reason.find('\''), std::size_t{100}}));
}

}  // namespace

void DataHealth::add(const LoadedBatch& batch, double batch_seconds) {
  for (Sums* sums : {&line_, &all_}) {
    sums->wait += batch.wait_seconds;
    sums->busy += batch_seconds;
    sums->read += batch.read_seconds;
    sums->decode += batch.decode_seconds;
    sums->truncated += batch.truncated;
    sums->seen += static_cast<std::int64_t>(batch.samples.size());
  }
}

void DataHealth::fields(nlohmann::ordered_json& line, std::int64_t skipped, std::int64_t samples) const {
  line["truncated_share"] = share(static_cast<double>(line_.truncated), static_cast<double>(line_.seen));
  line["data_wait_share"] = wait_share();
  line["read_share"] = share(line_.read, line_.read + line_.decode);
  line["skipped"] = skipped;
  line["skipped_share"] = share(static_cast<double>(skipped), static_cast<double>(samples));
}

std::string DataHealth::warning(int workers, int cores) const {
  if (wait_share() <= 0.2) return {};
  const std::string what = fmt::format("warning: {:.0f} % of the time is spent waiting for data; ", 100.0 * wait_share());
  if (line_.read > line_.decode) {
    return what + fmt::format(
                      "reading takes {:.0f} % of a worker's time: use a faster disk, larger shards, or --shuffle-buffer 8192 to read in "
                      "sequence; more --workers (now {}) help where the disk answers many at once",
                      100.0 * share(line_.read, line_.read + line_.decode), workers);
  }
  if (workers < cores)
    return what + fmt::format("decoding is the limit: raise --workers (now {}, {} cores), or store smaller pictures", workers, cores);
  return what + fmt::format("decoding is the limit on {} cores: store smaller pictures", cores);
}

ReportTable DataHealth::table(const std::vector<SkippedSample>& skipped) const {
  const auto percent = [](double part) { return fmt::format("{:.2f} %", 100.0 * part); };
  ReportTable out{"Data", "Of this part of the run.", {"", ""}, {}};
  out.rows.push_back(
      {"captions cut to the context length", percent(share(static_cast<double>(all_.truncated), static_cast<double>(all_.seen)))});
  out.rows.push_back({"time spent waiting for data", percent(share(all_.wait, all_.busy))});
  out.rows.push_back({"of a worker's time: reading, the rest decoding", percent(share(all_.read, all_.read + all_.decode))});
  out.rows.push_back({"samples skipped (skipped.tsv)", std::to_string(skipped.size())});
  std::map<std::string, int> kinds;
  for (const SkippedSample& s : skipped) ++kinds[kind_of(s.reason)];
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [kind, count] : kinds) sorted.emplace_back(-count, kind);
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size() && i < 10; ++i) out.rows.push_back({"- " + sorted[i].second, std::to_string(-sorted[i].first)});
  return out;
}

}  // namespace twinlens
