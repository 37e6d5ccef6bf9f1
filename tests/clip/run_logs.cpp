// What a run writes for people and programs: TensorBoard's files, the page that grows, what it says of the data.

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "clip/src/data_health.h"
#include "clip/src/event_file.h"
#include "clip/src/live_report.h"
#include "clip/src/run_log.h"
#include "clip/src/text/unicode.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"
#include "tests/support/without_permission.h"

#include "twinlens/clip/dataset.h"
#include "twinlens/clip/epoch_order.h"
#include "twinlens/clip/report.h"
#include "twinlens/clip/trainer.h"
#include "twinlens/core/crc32c.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

std::string hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
    out += two;
  }
  return out;
}

std::string only_file(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) found.push_back(entry.path());
  REQUIRE(found.size() == 1);
  return found[0].string();
}

TEST_CASE("CRC-32C of known bytes", "[logs]") {
  // RFC 3720, appendix B.4, and the check value of the Castagnoli polynomial.
  CHECK(crc32c("123456789") == 0xE3069283U);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAU);
  CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43U);
  std::string rising;
  for (int i = 0; i < 32; ++i) rising += static_cast<char>(i);
  CHECK(crc32c(rising) == 0x46DD794EU);
  for (std::size_t cut = 0; cut <= 32; ++cut) CHECK(crc32c(rising.data() + cut, 32 - cut, crc32c(rising.data(), cut)) == 0x46DD794EU);
}

TEST_CASE("a line of metrics that finds no room is an error that says where", "[logs]") {
  if (!fs::exists("/dev/full")) return;
  const TemporaryFolder folder;
  fs::create_symlink("/dev/full", folder / "metrics.jsonl");
  RunLog log(folder.path());
  CHECK_THROWS_WITH(log.metrics({{"step", 1}}), Contains((folder / "metrics.jsonl") + "; free some disk space"));
}

TEST_CASE("event files have TensorBoard's bytes", "[logs]") {
  // tests/golden/make_events.py: the tensorboard package's own writer.
  CHECK(hex(tfrecord(version_event(1.5))) == "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c");
  CHECK(hex(tfrecord(event_of(2.5, 300, {{"train/loss", 0.5}, {"val/x", -2.0}}))) ==
        "2f000000000000006d5d1d5009000000000000044010ac022a210a110a0a747261696e2f6c6f7373150000003f0a0c0a0576616c2f7815000000c0a8fc5b88");
}

TEST_CASE("event files are cut back to a step", "[logs]") {
  const TemporaryFolder folder;
  {
    EventFile file(folder.path());
    for (int step = 1; step <= 5; ++step) file.add(step, {{"train/loss", 1.0 / step}});
    file.add(5, {{"val/x", 1.0}});
  }
  const std::string path = only_file(folder.path()), whole = read_file(path);
  EventFile::rewind(folder.path(), 5);
  CHECK(read_file(path) == whole);
  EventFile::rewind(folder.path(), 5, "val/");
  const std::string five = read_file(path);
  CHECK(five.size() == whole.size() - tfrecord(event_of(0, 5, {{"val/x", 1.0}})).size());
  // Half a record, as a killed process leaves it.
  write_text(path, five.substr(0, five.size() - 7));
  EventFile::rewind(folder.path(), 5);
  const std::string four = read_file(path);
  CHECK(four.size() == five.size() - tfrecord(event_of(0, 5, {{"train/loss", 0.2}})).size());
  CHECK(four == five.substr(0, four.size()));
  EventFile::rewind(folder.path(), 0);
  CHECK(read_file(path).size() == tfrecord(version_event(0)).size());
  write_text(path, "no event file");
  EventFile::rewind(folder.path(), 3);
  CHECK(read_file(path).empty());
}

TrainOptions options_in(const TemporaryFolder& folder) {
  TrainOptions o = toy_training(folder, toy_pairs(16));
  o.val_data = o.train_data;
  o.batch_size = 8;
  o.epochs = 3;
  o.threads = 1;
  o.log_every_n_steps = 1;
  o.report_to = "tensorboard";
  return o;
}

// (Set TWINLENS_PYTHON to a Python that has the tensorboard package.)
TEST_CASE("TensorBoard reads what a run wrote", "[logs]") {
  const TemporaryFolder folder;
  train(options_in(folder));
  const char* named = std::getenv("TWINLENS_PYTHON");
  const std::string python = named != nullptr ? named : "python3", events = folder / "logs/run/tensorboard";
  if (std::system((python + " -c 'import tensorboard' 2>/dev/null").c_str()) != 0) {
    WARN("skipped: " << python << " has no tensorboard package; set TWINLENS_PYTHON");
    return;
  }
  write_text(folder / "read.py",
             "import sys, json\n"
             "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
             "a = EventAccumulator(sys.argv[1]); a.Reload()\n"
             "print(json.dumps({t: [[e.step, e.value] for e in a.Scalars(t)] for t in a.Tags()['scalars']}))\n");
  REQUIRE(std::system((python + " " + (folder / "read.py") + " " + events + " > " + (folder / "out.json") + " 2>/dev/null").c_str()) == 0);
  const auto seen = nlohmann::json::parse(read_file(folder / "out.json"));
  std::istringstream lines(read_file(folder / "logs/run/metrics.jsonl"));
  std::size_t train_lines = 0, val_lines = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    const bool val = json.contains("clip_val_loss");
    const auto& curve = seen.at(val ? "val/clip_val_loss" : "train/loss");
    const auto& point = curve.at(val ? val_lines++ : train_lines++);
    CHECK(point[0] == json["step"]);
    CHECK(point[1].get<float>() == json[val ? "clip_val_loss" : "loss"].get<float>());
  }
  CHECK(train_lines == 6);
  CHECK(val_lines == 3);
  CHECK(seen.at("train/lr").size() == 6);
  CHECK(seen.contains("val/image_to_text_R@1"));
}

TEST_CASE("the page is there while the run goes on, and says how the data does", "[logs]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  write_text(folder / "data/00.png", "damaged");
  o.max_skipped = 0.5;
  o.report_seconds = 1e-3;
  o.save_every_steps = 1;
  const std::atomic<bool> now{true};
  train(o, &now);  // stops after one step
  DataHealth health;
  TrainState state;
  state.step = 1;
  LiveReport live(folder / "logs/run", 3600.0);
  live.update(o, state, 6, health, {});
  std::string page = read_file(folder / "logs/run/report.html");
  CHECK_THAT(page, Contains("Under way: step 1 of 6") && Contains("http-equiv='refresh'") && Contains("time spent waiting for data") &&
                       Contains("captions cut to the context length") && !Contains("src='http") && !Contains("href="));
  state.step = 2;
  live.update(o, state, 6, health, {});  // not before it is time
  CHECK(read_file(folder / "logs/run/report.html") == page);
  o.resume = "latest";
  train(o);
  page = read_file(folder / "logs/run/report.html");
  CHECK_THAT(page, Contains("6 steps, ") && !Contains("http-equiv='refresh'") && Contains("Training loss") &&
                       Contains("samples skipped (skipped.tsv)"));
  std::istringstream lines(read_file(folder / "logs/run/metrics.jsonl"));
  std::string line, last;
  while (std::getline(lines, line)) {
    if (line.find("\"loss\"") != std::string::npos) last = line;
  }
  const auto json = nlohmann::json::parse(last);
  CHECK(json["skipped"] == 1);
  CHECK(json["skipped_share"].get<double>() == 1.0 / 16);
  CHECK(json["truncated_share"] == 0.0);
  CHECK(json.contains("data_wait_share"));
  CHECK_THAT(read_file(folder / "logs/run/skipped.tsv"), Contains("00.png\t"));
  o.report_to = "wandb";
  CHECK_THROWS_WITH(train(o), Contains("'wandb' is not there; --report-to"));
}

TEST_CASE("epochs of different lengths: a run that ended can be asked to go on, and lines say the epoch they are in", "[logs]") {
  const TemporaryFolder folder;
  auto pairs = toy_pairs(30);
  for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i].caption = "class " + std::to_string(i % 5);
  TrainOptions o = toy_training(folder, pairs);
  o.batch_size = 4;
  o.equal_captions = "apart";
  o.epochs = 12;
  o.log_every_n_steps = 1;
  const auto data = open_dataset(o.train_data);
  std::vector<std::int64_t> ends;                                         // of epochs, in steps
  for (o.seed = 0; ends.empty() || ends[12] >= 12 * ends[1]; ++o.seed) {  // until the first epoch is longer than most
    REQUIRE(o.seed < 100);
    ends = {0};
    for (int e = 0; e < 20; ++e) {
      const EpochOrder order(*data, {.global_batch = 4, .seed = o.seed + 1, .apart = true, .draw_captions = false, .buffer = 0}, e);
      ends.push_back(ends.back() + order.size() / 4);
    }
  }
  const std::int64_t steps = train(o).steps;
  CHECK(steps == ends[1] * 12);
  std::istringstream lines(read_file(folder / "logs/run/metrics.jsonl"));
  std::int64_t seen = 0, epoch = 0;
  for (std::string text; std::getline(lines, text); ++seen) {
    const auto line = nlohmann::json::parse(text);
    while (ends[static_cast<std::size_t>(epoch) + 1] < seen + 1) ++epoch;
    const auto at = static_cast<std::size_t>(epoch);
    const auto length = static_cast<double>(ends[at + 1] - ends[at]);
    CHECK(line["epoch"].get<double>() == Approx(static_cast<double>(epoch) + static_cast<double>(seen + 1 - ends[at]) / length));
  }
  CHECK(seen == steps);
  CHECK(epoch >= 12);  // its last step is in an epoch behind the twelfth
  o.resume = "latest";
  CHECK(train(o).steps == steps);
  o.epochs = 11;
  CHECK_THROWS_WITH(train(o), Catch::Contains("is begun and --epochs is 11"));
}

TEST_CASE("a folder of runs that may not be looked into is an error with its name", "[logs]") {
  const TemporaryFolder folder;
  TrainOptions o = options_in(folder);
  o.logs = folder / "closed";
  fs::create_directories(o.logs);
  const WithoutPermission closed(o.logs);
  if (!closed.holds()) {
    WARN("skipped: no user without permissions");
    return;
  }
  CHECK_THROWS_WITH(train(o), Contains("run folder cannot be looked at: Permission denied; " + o.logs + "/" + o.name + "; choose another"));
}

TEST_CASE("the page is UTF-8 whatever the names and captions are", "[logs]") {
  const TemporaryFolder folder;
  const std::string bad = "caf\xe9 <\xf0\x9f", shown = "caf\xef\xbf\xbd &lt;\xef\xbf\xbd";
  const Image image{1, 1, {1, 2, 3}};
  Report report;
  report.title = report.summary = bad;
  report.tables.push_back({bad, bad, {bad}, {{bad}}});
  report.queries.push_back({bad, {{image, bad, true}}});
  report.mistakes.push_back({image, bad, bad});
  report.settings.emplace_back(bad, bad);
  write_text(folder / "metrics.jsonl", "{\"step\": 1, \"samples_per_second\": 1813.4}\n{\"step\": 2, \"samples_per_second\": 0.0125}\n");
  write_report(folder / "report.html", report, folder / "metrics.jsonl");
  const std::string page = read_file(folder / "report.html");
  CHECK(valid_utf8(page) == page);
  CHECK_THAT(page, Contains(">1813</text>") && Contains(">0.0125</text>"));
  std::size_t count = 0;
  for (std::size_t at = 0; (at = page.find(shown, at)) != std::string::npos; ++at) ++count;
  CHECK(count == 16);
}

TEST_CASE("the page counts kinds of unusable samples, not their names", "[logs]") {
  const TemporaryFolder folder;
  write_toy_folder(folder / "data", toy_pairs(6));
  for (const char* name : {"x.png", "y.png", "z.png"}) write_text(folder / "data/" + name, toy_pairs(1)[0].png);
  const auto data = open_dataset(folder / "data");
  REQUIRE(data->skipped().size() == 3);
  const ReportTable table = DataHealth().table(data->skipped());
  CHECK(table.rows.back() == std::vector<std::string>{"- no caption", "3"});
}

TEST_CASE("waiting for data is named with its remedy", "[logs]") {
  LoadedBatch batch;
  batch.samples.resize(8);
  batch.wait_seconds = 0.1;
  batch.read_seconds = 0.1;
  batch.decode_seconds = 0.9;
  DataHealth health;
  health.add(batch, 1.0);
  CHECK(health.warning(2, 8).empty());
  batch.wait_seconds = 0.9;
  health.add(batch, 1.0);
  CHECK_THAT(health.warning(2, 8), Contains("50 % of the time") && Contains("decoding is the limit: raise --workers (now 2, 8 cores)"));
  CHECK_THAT(health.warning(8, 8), Contains("decoding is the limit on 8 cores: store smaller pictures"));
  batch.read_seconds = 9.0;
  health.add(batch, 1.0);
  CHECK_THAT(health.warning(2, 8), Contains("reading takes") && Contains("--shuffle-buffer"));
  const ReportTable table =
      health.table({{"a", "the picture cannot be decoded; a"}, {"b", "the picture cannot be decoded; b"}, {"c", "x"}});
  CHECK(table.rows.back() == std::vector<std::string>{"- x", "1"});
  CHECK(table.rows[table.rows.size() - 2] == std::vector<std::string>{"- the picture cannot be decoded", "2"});
}

}  // namespace
}  // namespace twinlens::test
