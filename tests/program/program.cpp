#include "tests/program/program.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

std::string temporary_name() {
  std::string path = (std::filesystem::temp_directory_path() / "twinlens-out-XXXXXX").string();
  const int descriptor = ::mkstemp(path.data());
  if (descriptor < 0) throw std::runtime_error("cannot create " + path);
  ::close(descriptor);
  return path;
}

[[noreturn]] void become_program(const Start& start, const std::string& in, const std::string& out, const std::string& err) {
  ::dup2(::open(in.c_str(), O_RDONLY), STDIN_FILENO);
  ::dup2(::open((start.output.empty() ? out : start.output).c_str(), O_WRONLY | O_TRUNC), STDOUT_FILENO);
  ::dup2(::open(err.c_str(), O_WRONLY | O_TRUNC), STDERR_FILENO);
  ::setenv("OMP_WAIT_POLICY", "passive", 0);
  for (const std::string& variable : start.environment) ::putenv(const_cast<char*>(variable.c_str()));
  if (start.file_size_limit > 0) {
    const rlimit limit{static_cast<rlim_t>(start.file_size_limit), static_cast<rlim_t>(start.file_size_limit)};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  std::signal(SIGHUP, SIG_DFL);  // the tests may run under nohup
  std::vector<char*> arguments{const_cast<char*>("twinlens")};
  for (const std::string& argument : start.arguments) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  ::execv(TWINLENS_PROGRAM, arguments.data());
  ::_exit(127);
}

}  // namespace

Running::Running(const Start& start) : out_(temporary_name()), err_(temporary_name()) {
  const std::string in = temporary_name();
  write_text(in, start.input);
  id_ = ::fork();
  if (id_ == 0) become_program(start, in, out_, err_);
  // The child has it open, or will before it goes on; wait() removes what is left.
  in_ = in;
}

void Running::signal(int number) const { ::kill(id_, number); }

bool Running::ended() {
  if (!waited_) waited_ = ::waitpid(id_, &status_, WNOHANG) == id_;
  return waited_;
}

Outcome Running::wait() {
  while (!waited_) waited_ = ::waitpid(id_, &status_, 0) == id_ || errno != EINTR;
  Outcome outcome{WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_), read_file(out_), read_file(err_)};
  for (const std::string& file : {in_, out_, err_}) ::unlink(file.c_str());
  return outcome;
}

Outcome run(const Start& start) { return Running(start).wait(); }
Outcome run(const std::vector<std::string>& arguments) { return run(Start{arguments, {}, {}, 0}); }

const TrainedModel& trained_model() {
  static const TemporaryFolder folder;
  static const TrainedModel model = [] {
    write_toy_folder(folder / "data", toy_pairs(24));
    write_text(folder / "vit.json", toy_vit_json());
    const Outcome o = run({"train", "--train-data", folder / "data", "--val-data", folder / "data", "--model", folder / "vit.json",
                           "--batch-size", "8", "--epochs", "2", "--lr", "1e-3", "--logs", folder / "logs", "--name", "run"});
    INFO(o.err);
    REQUIRE(o.status == 0);
    return TrainedModel{folder.path(), folder / "logs/run/model", folder / "data", folder / "logs/run"};
  }();
  return model;
}

nlohmann::json json_of(const std::vector<std::string>& arguments) {
  const Outcome o = run(arguments);
  INFO(o.err);
  REQUIRE(o.status == 0);
  return nlohmann::json::parse(o.out);
}

nlohmann::json last_metrics(const std::string& run_folder) {
  const std::string metrics = read_file(run_folder + "/metrics.jsonl");
  const std::size_t before = metrics.rfind('\n', metrics.size() - 2);
  return nlohmann::json::parse(metrics.substr(before == std::string::npos ? 0 : before + 1));
}

std::string picture(int i) { return trained_model().data + "/" + (i < 10 ? "0" : "") + std::to_string(i) + ".png"; }

}  // namespace twinlens::test
