// Metrics over a part of the queries, words of captions, and the linear probe.

#include "twinlens/clip/evaluation.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <set>

#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/without_permission.h"

#include "twinlens/clip/linear_probe.h"
#include "twinlens/clip/metrics.h"
#include "twinlens/clip/picture_index.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/clip/seen_words.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/clip/zero_shot.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Strings = std::vector<std::string>;

// A model with random weights, and a folder with `pairs` pictures in data/.
struct ToyModel {
  explicit ToyModel(int pairs) {
    write_text(folder / "model.json", toy_vit_json());
    write_toy_folder(folder / "data", toy_pairs(pairs));
    model = std::make_unique<Clip>(find_model_config(folder / "model.json"), 1);
    tokenizer = tokenizer_of(model->config);
  }
  // An index of folder/`data` at folder/`to`.
  IndexResult index(const std::string& data, const std::string& to, const EmbedOptions& options = {}, bool stops = false) const {
    return build_index(
        *model, *tokenizer, "model", {folder / data}, folder / to, options, [stops] { return stops; }, [](const SkippedSample&) {});
  }

  TemporaryFolder folder;
  std::unique_ptr<Clip> model;
  std::shared_ptr<const Tokenizer> tokenizer;
};

TEST_CASE("words of captions", "[eval]") {
  CHECK(words_of("A Red-Square, on 2 BLUE ones!") == Strings{"a", "red", "square", "on", "2", "blue", "ones"});
  CHECK(words_of("  Piñata &amp; Ærø ") == Strings{"piñata", "ærø"});
  CHECK(words_of("...").empty());
  SeenWords seen;
  seen.add("red heart");
  seen.add("Flag: Norway");
  CHECK(seen.size() == 4);
  CHECK(seen.contains_all_of("norway RED"));
  CHECK(seen.contains_all_of(""));
  CHECK_FALSE(seen.contains_all_of("red hearts"));
}

TEST_CASE("queries can be left out while all candidates stay", "[eval]") {
  // Texts along the axes; image 0 shows text 0, image 1 text 1 (but looks like text 2), images 2 and 3 text 2.
  const Tensor texts = from_vector(std::vector<float>{1, 0, 0, 0, 1, 0, 0, 0, 1}, {3, 3});
  const Tensor images = from_vector(std::vector<float>{1, 0.1F, 0, 0, 0.6F, 0.8F, 0.2F, 0, 0.9F, 0.9F, 0, 0.2F}, {4, 3});
  const std::vector<std::int64_t> captions{0, 1, 2, 2};
  const Retrieval all = retrieval_metrics(images, texts, captions);
  CHECK(all.image_to_text.r1 == 0.5);
  CHECK(all.text_to_image.r1 == 1.0);
  const Retrieval first = retrieval_metrics(images, texts, captions, {true, true, false});
  CHECK(first.images == 2);
  CHECK(first.texts == 2);
  CHECK(first.image_to_text.r1 == 0.5);         // text 2, no query itself, still wins over text 1
  CHECK(first.image_to_text.mean_rank == 1.5);  // ranks 1 and 2
  const Retrieval last = retrieval_metrics(images, texts, captions, {false, false, true});
  CHECK(last.images == 2);
  CHECK(last.texts == 1);
  CHECK(last.image_to_text.mean_rank == 1.5);  // image 3 looks like text 0
  CHECK(last.text_to_image.r1 == 1.0);
  const Retrieval none = retrieval_metrics(images, texts, captions, {false, false, false});
  CHECK(none.images == 0);

  const Classification some = classification_metrics(images, texts, captions, {true, true, false, true});
  CHECK(some.images == 3);
  CHECK(some.top1 == Approx(1.0 / 3));
  CHECK(some.top5 == 1.0);
  CHECK(some.mean_per_class_recall == Approx(1.0 / 3));
}

TEST_CASE("features that are no numbers win nothing, and are an error where they are made", "[eval]") {
  const float nan = std::nanf("");
  const Tensor texts = from_vector(std::vector<float>{nan, nan, 0, 1}, {2, 2});
  const Tensor images = from_vector(std::vector<float>{1, 0, 0, 1}, {2, 2});
  const Retrieval r = retrieval_metrics(images, texts, std::vector<std::int64_t>{0, 1});
  CHECK(r.image_to_text.r1 == 0.0);
  CHECK(r.text_to_image.r1 == 0.5);
  CHECK_THROWS_AS(classification_metrics(images, texts, {0, 1}), NumericError);
  CHECK_THROWS_WITH(classification_metrics(images, texts, {0, 1}), Catch::Contains("2 of 4 numbers of the classes are not finite"));
  CHECK_THROWS_WITH(classification_metrics(texts, images, {0, 1}), Catch::Contains("2 of 4 numbers of the images are not finite"));
  CHECK(retrieval_metrics(from_vector(std::vector<float>{nan, nan}, {1, 2}), images, std::vector<std::int64_t>{0}).image_to_text.r10 ==
        1.0);

  const ToyModel toy(2);
  Clip& model = *toy.model;
  CHECK_THROWS_AS(embed_image_files(model, {}), ShapeError);
  CHECK_THROWS_WITH(embed_image_files(model, {}), Catch::Contains("embed_image_files: needs at least one path"));
  const Tensor pixels = zeros({1, 32, 32, 3}, DType::u8);
  CHECK(embed_pictures(model, pixels, {}).count() > 0);
  {
    const NoGrad guard;
    for (const NamedParameter& p : collect(model).parameters) {
      if (p.name == "visual.proj") p.parameter->value.fill_(std::nan(""));
    }
  }
  CHECK_THROWS_WITH(embed_pictures(model, pixels, {}), Catch::Contains("features of pictures are not finite"));
  EmbedOptions no_batch;
  no_batch.batch_size = 0;  // (a stream would never end)
  PictureStream pictures({toy.folder / "data"});
  CHECK_THROWS_WITH(embed_stream(model, pictures, no_batch, {}, {}), Catch::Contains("embed_stream: needs a positive batch size"));
  const std::atomic<bool> stop{true};
  EmbedOptions stopped;
  stopped.stop = &stop;
  CHECK_THROWS_AS(embed_dataset(model, *toy.tokenizer, *open_dataset(toy.folder / "data"), stopped), Stopped);
}

TEST_CASE("a class is the mean direction of its sentences, whatever the options say; a template needs a place for the name", "[eval]") {
  const ToyModel toy(1);
  const Strings classes{"cat", "dog"}, templates{"a photo of a {}.", "itap of the large {}."};
  EmbedOptions bare;
  bare.normalize = false;
  const auto of = [&](const EmbedOptions& options) {
    return zero_shot_classifier(*toy.model, *toy.tokenizer, classes, templates, options).to_vector();
  };
  CHECK(of(bare) == of({}));
  CHECK_THROWS_WITH(zero_shot_classifier(*toy.model, *toy.tokenizer, classes, {"a photo"}),
                    Catch::Contains("template 'a photo' has no {}"));
}

TEST_CASE("of a dataset, the chosen samples alone: their rows are those of the whole", "[eval]") {
  const ToyModel toy(4);
  // A file that comes again is one picture with several captions.
  write_text(toy.folder / "broken.png", "no picture");
  write_text(toy.folder / "t.csv",
             "filepath,title\ndata/00.png,a\ndata/00.png,b\ndata/01.png,c\ndata/00.png,d\nbroken.png,e\ndata/02.png,f\n");
  const auto data = open_dataset(toy.folder / "t.csv");
  const EmbeddedDataset all = embed_dataset(*toy.model, *toy.tokenizer, *data, {}),
                        some = embed_dataset(*toy.model, *toy.tokenizer, *data, {0, 1, 3, 5}, {});
  CHECK(all.samples == std::vector<std::int64_t>{0, 2, 5});
  CHECK(all.skipped.size() == 1);
  CHECK(some.samples == std::vector<std::int64_t>{0, 5});
  CHECK(some.skipped.empty());
  CHECK(some.captions == Strings{"a", "b", "d", "f"});
  CHECK(some.texts_of == std::vector<std::vector<std::int64_t>>{{0, 1, 2}, {3}});
  const auto rows = [](const Tensor& x, const std::vector<std::int64_t>& of) {
    return index_select(x, 0, from_vector(of, {static_cast<std::int64_t>(of.size())})).to_vector();
  };
  CHECK(some.images.to_vector() == rows(all.images, {0, 2}));
  CHECK(all.captions == Strings{"a", "b", "d", "c", "f"});
  CHECK(some.texts.to_vector() == rows(all.texts, {0, 1, 2, 4}));
}

TEST_CASE("where samples are counted, equal pictures are as many as there are samples", "[eval]") {
  const ToyModel toy(4);
  write_text(toy.folder / "t.csv", "filepath,title\ndata/00.png,a\ndata/00.png,b\ndata/01.png,a\n");
  EmbedOptions options;
  options.each_sample = true;
  const auto data = open_dataset(toy.folder / "t.csv");
  CHECK(embed_dataset(*toy.model, *toy.tokenizer, *data, options).samples == std::vector<std::int64_t>{0, 1, 2});
  CHECK(embed_dataset(*toy.model, *toy.tokenizer, *data, {}).samples == std::vector<std::int64_t>{0, 2});
  // Class folders are counted without being asked.
  const std::string bytes = read_file(toy.folder / "data/00.png");
  for (const char* name : {"one", "two"}) std::filesystem::create_directories(toy.folder / ("classes/" + std::string(name)));
  for (const std::string name : {"one/1", "one/2", "two/1", "two/2"}) write_text(toy.folder / ("classes/" + name + ".png"), bytes);
  const EmbeddedDataset e = embed_dataset(*toy.model, *toy.tokenizer, *open_dataset(toy.folder / "classes"), {});
  CHECK(e.samples == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(e.caption_of == std::vector<std::int64_t>{0, 0, 1, 1});
}

TEST_CASE("every sample that shows a picture which cannot be decoded is listed", "[eval]") {
  const ToyModel toy(4);
  write_text(toy.folder / "data/bad.png", "no picture");
  write_text(toy.folder / "data/0.png", read_file(toy.folder / "data/" + toy_pairs(1)[0].name + ".png"));
  write_text(toy.folder / "t.csv", "filepath,caption\ndata/bad.png,one\ndata/0.png,a\ndata/bad.png,two\ndata/bad.png,three\n");
  const auto data = open_dataset(toy.folder / "t.csv");
  const EmbeddedDataset embedded = embed_dataset(*toy.model, *toy.tokenizer, *data, EmbedOptions());
  Strings keys;
  for (const SkippedSample& s : embedded.skipped) keys.push_back(s.key);
  CHECK(keys == Strings{"t.csv:2", "t.csv:4", "t.csv:5"});
  CHECK(embedded.captions == Strings{"a"});
}

TEST_CASE("an index is asked for 0 pictures or more, and made with both of its functions", "[eval]") {
  const ToyModel toy(3);
  CHECK(toy.index("data", "index").count == 3);
  const PictureIndex index(toy.folder / "index", *toy.model, *toy.tokenizer);
  const Tensor query = embed_texts(*toy.model, *toy.tokenizer, {"a"});
  CHECK(index.search(query, 0, 1.0).empty());
  CHECK(index.search(query, 9, 1.0).size() == 3);
  CHECK_THROWS_AS(index.search(query, -1, 1.0), ShapeError);
  CHECK_THROWS_WITH(index.search(query, -1, 1.0), Catch::Contains("search: k must be 0 or more; k=-1"));
  const auto build = [&] { build_index(*toy.model, *toy.tokenizer, "m", {toy.folder / "data"}, toy.folder / "new", {}, {}, {}); };
  CHECK_THROWS_AS(build(), ConfigError);
  CHECK_THROWS_WITH(build(), Catch::Contains("build_index: stop or skip is an empty function"));
  CHECK_FALSE(std::filesystem::exists(toy.folder / "new"));
}

TEST_CASE("an index that is there gives way to a whole one only", "[eval]") {
  const ToyModel toy(5);
  const TemporaryFolder& folder = toy.folder;
  EmbedOptions options;
  options.batch_size = 2;
  const auto build = [&](const std::string& data, bool stops) { return toy.index(data, "index", options, stops); };
  const auto rows = [&] { return PictureIndex(folder / "index", *toy.model, *toy.tokenizer).count(); };
  CHECK(build("data", true).stopped);
  CHECK(rows() == 2);  // nothing was there
  build("data", false);
  CHECK(rows() == 5);
  CHECK(build("data", true).stopped);
  CHECK(rows() == 5);
  std::filesystem::create_directories(folder / "nothing");
  write_text(folder / "nothing/x.png", "no picture");
  CHECK_THROWS_WITH(build("nothing", false), Catch::Contains("no usable picture"));
  CHECK(rows() == 5);
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "index")) names.insert(entry.path().filename().string());
  CHECK(names == std::set<std::string>{"embeddings.safetensors", "index.json", "names.txt"});
}

TEST_CASE("an index does not come among other files", "[eval]") {
  const ToyModel toy(2);
  const TemporaryFolder& folder = toy.folder;
  const auto build = [&](const std::string& to) { return toy.index("data", to).count; };
  const std::string message = "the folder is no index and holds other files, such as '";
  CHECK_THROWS_WITH(build("data"), Catch::Contains(message) && Catch::Contains("'; --index, --output " + (folder / "data")));
  std::filesystem::create_directories(folder / "site");
  write_text(folder / "site/index.json", "{}");
  write_text(folder / "site/page.html", "x");
  CHECK_THROWS_WITH(build("site"), Catch::Contains(message + "page.html'"));
  CHECK(std::filesystem::file_size(folder / "site/index.json") == 2);
  // Into an empty folder, over an index, over one that is damaged, and over one with a note of its owner.
  std::filesystem::create_directories(folder / "empty");
  write_text(folder / "empty/.hidden", "x");
  CHECK(build("empty") == 2);
  CHECK(build("empty") == 2);
  write_text(folder / "empty/index.json", "{");
  CHECK(build("empty") == 2);
  write_text(folder / "empty/notes.txt", "x");
  CHECK(build("empty") == 2);
}

TEST_CASE("what may not be looked at is not said to be missing", "[eval]") {
  const ToyModel toy(1);
  const TemporaryFolder& folder = toy.folder;
  std::filesystem::create_directories(folder / "closed/index");
  CHECK_THROWS_WITH(PictureIndex(folder / "closed/index", *toy.model, *toy.tokenizer),
                    Catch::Contains("not an index: index.json is missing"));
  CHECK_THROWS_WITH(find_model_config(folder / "closed/index"), Catch::Contains("index' is no model"));
  const WithoutPermission closed(folder / "closed");
  if (!closed.holds()) {
    WARN("skipped: no user without permissions");
    return;
  }
  const std::string path = folder / "closed/index";
  CHECK_THROWS_WITH(PictureIndex(path, *toy.model, *toy.tokenizer),
                    Catch::Contains("the index cannot be read: Permission denied; " + path));
  CHECK_THROWS_WITH(find_model_config(path), Catch::Contains("model cannot be looked at: Permission denied; " + path));
  CHECK_THROWS_WITH(find_source(path), Catch::Contains("model cannot be looked at: Permission denied; " + path));
  const auto closed_to = Catch::Contains("model cannot be looked at: Permission denied; " + path);
  CHECK_THROWS_WITH(tokenizer_files_in(path), closed_to);
  CHECK_THROWS_WITH(tokenizer_folder(path), closed_to);
  CHECK_THROWS_WITH(find_tokenizer(path, {"some/tokenizer", "", 100}), closed_to);
  CHECK(find_model_config("RN50").vision.is_resnet());
}

TEST_CASE("the validation loss does not hang on the order of the data", "[eval]") {
  CHECK_THROWS_AS(validation_loss(EmbeddedDataset(), full({}, 2.0)), ShapeError);
  // 600 pictures of either of two captions, sorted, which features do not tell apart.
  EmbeddedDataset e;
  std::vector<float> images;
  for (std::int64_t i = 0; i < 600; ++i) {
    e.caption_of.push_back(i / 300);
    images.insert(images.end(), {1.0F, 0.0F});
  }
  e.images = from_vector(images, {600, 2});
  e.texts = from_vector(std::vector<float>{1, 0, 1, 0}, {2, 2});
  const Tensor scale = from_vector(std::vector<float>{0.0F}, Shape{});
  CHECK(validation_loss(e, scale) > 0.5);
  CHECK(validation_loss(e, scale) == validation_loss(e, scale));
}

TEST_CASE("several texts an image: any correct one counts", "[eval]") {
  const Tensor texts = from_vector(std::vector<float>{1, 0, 0, 0, 1, 0, 0, 0, 1}, {3, 3});
  const Tensor images = from_vector(std::vector<float>{0.2F, 0.9F, 0, 0, 0.3F, 0.9F}, {2, 3});
  using Lists = std::vector<std::vector<std::int64_t>>;
  const Retrieval r = retrieval_metrics(images, texts, Lists{{0, 1}, {0}});
  CHECK(r.image_to_text.r1 == 0.5);         // image 0 finds its second text; image 1 has text 0 last
  CHECK(r.image_to_text.mean_rank == 2.0);  // ranks 1 and 3
  CHECK(r.text_to_image.r1 == 1.0);         // text 0 finds image 0, text 1 image 0; text 2 shows no image and asks nothing
  CHECK_THROWS_WITH(retrieval_metrics(images, texts, Lists{{0}, {}}), Catch::Contains("image 1 has no text"));
}

TEST_CASE("the linear probe is the same on every run, and leaves classes without pictures out", "[eval]") {
  constexpr std::int64_t kCount = 60, kDim = 8, kClasses = 3;
  Tensor x = empty({kCount, kDim});
  normal_(x, 0.3, 0.5, 1, 2);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < kCount; ++i) labels.push_back(i * i % kClasses);  // (class 2 has none)
  const LinearProbe probe = fit_linear_probe(x, labels, kClasses);
  CHECK(probe.converged);
  CHECK(fit_linear_probe(x, labels, kClasses).w.to_vector() == probe.w.to_vector());
  CHECK(classification_metrics(probe.inputs(x), probe.classes(), labels).top1 > 0.6);
  CHECK(probe.b.to_vector()[2] < -1e20F);
  CHECK_THROWS_WITH(fit_linear_probe(x, labels, kClasses, {.c = 0.0}), Catch::Contains("linear_probe: c = 0.000000 must be positive"));
  CHECK_THROWS_WITH(fit_linear_probe(x, labels, kClasses, {.c = std::nan("")}), Catch::Contains("must be positive"));
  CHECK_FALSE(fit_linear_probe(x, labels, kClasses, {.c = 1e6, .max_steps = 3, .tolerance = 1e-9}).converged);
  x.data<float>()[7 * kDim + 2] = std::nanf("");
  CHECK_THROWS_AS(fit_linear_probe(x, labels, kClasses), NumericError);
  CHECK_THROWS_WITH(fit_linear_probe(x, labels, kClasses), Catch::Contains("linear_probe: features of row 7 are not finite"));
}

}  // namespace
}  // namespace twinlens::test
