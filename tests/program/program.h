#pragma once
// Runs the built `twinlens` program as a user does.

#include <nlohmann/json.hpp>
#include <string>
#include <sys/types.h>
#include <vector>

namespace twinlens::test {

struct Outcome {
  int status = -1;  // of exit; minus the signal that ended it
  std::string out, err;
};

struct Start {
  std::vector<std::string> arguments;
  std::string input = {};                     // to stdin
  std::vector<std::string> environment = {};  // "NAME=value", added
  long file_size_limit = 0;                   // bytes that one file may have (RLIMIT_FSIZE); 0: no limit
  std::string output = {};                    // where stdout goes instead of Outcome::out
};

// A program under way. wait() must be called.
class Running {
 public:
  explicit Running(const Start& start);
  pid_t id() const { return id_; }
  void signal(int number) const;
  bool ended();  // without waiting
  Outcome wait();

 private:
  std::string in_, out_, err_;  // files
  pid_t id_ = -1;
  int status_ = 0;
  bool waited_ = false;
};

Outcome run(const Start& start);
Outcome run(const std::vector<std::string>& arguments);
// Of a run that must succeed: stdout is one JSON document and nothing else.
nlohmann::json json_of(const std::vector<std::string>& arguments);
// The last line of metrics.jsonl in the folder of a run.
nlohmann::json last_metrics(const std::string& run_folder);

// A model folder with its pictures, made once by `twinlens train`; removed at the end.
struct TrainedModel {
  std::string folder, model, data, log;
};
const TrainedModel& trained_model();
std::string picture(int i);  // the path of its picture i

}  // namespace twinlens::test
