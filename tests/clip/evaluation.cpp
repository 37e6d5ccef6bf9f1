// Metrics over a part of the queries, words of captions, and the linear probe.

#include <catch2/catch.hpp>
#include <cmath>

#include "twinlens/clip/linear_probe.h"
#include "twinlens/clip/metrics.h"
#include "twinlens/clip/seen_words.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

using Strings = std::vector<std::string>;

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

// Gradient of the probe's objective in double precision: its 2-norm.
double gradient_norm(const std::vector<float>& x, const std::vector<float>& w, const std::vector<float>& b,
                     const std::vector<std::int64_t>& labels, std::size_t d, double l2) {
  const std::size_t classes = b.size(), n = labels.size();
  std::vector<double> dw(w.size()), db(classes);
  for (std::size_t c = 0; c < classes; ++c) db[c] = l2 * static_cast<double>(b[c]);
  for (std::size_t k = 0; k < w.size(); ++k) dw[k] = l2 * static_cast<double>(w[k]);
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<double> p(classes);
    double total = 0.0;
    for (std::size_t c = 0; c < classes; ++c) {
      double logit = static_cast<double>(b[c]);
      for (std::size_t k = 0; k < d; ++k) logit += static_cast<double>(w[c * d + k]) * static_cast<double>(x[i * d + k]);
      total += p[c] = std::exp(logit);
    }
    for (std::size_t c = 0; c < classes; ++c) {
      const double error = (p[c] / total - (static_cast<std::int64_t>(c) == labels[i] ? 1.0 : 0.0)) / static_cast<double>(n);
      db[c] += error;
      for (std::size_t k = 0; k < d; ++k) dw[c * d + k] += error * static_cast<double>(x[i * d + k]);
    }
  }
  double sum = 0.0;
  for (const double g : dw) sum += g * g;
  for (const double g : db) sum += g * g;
  return std::sqrt(sum);
}

TEST_CASE("the linear probe finds the minimum of its objective", "[eval]") {
  constexpr std::int64_t kCount = 60, kDim = 8, kClasses = 3;
  Tensor x = empty({kCount, kDim});
  normal_(x, 0.3, 0.5, 1, 2);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < kCount; ++i) labels.push_back(i * i % kClasses);  // (class 2 has none)
  for (const double l2 : {1e-1, 1e-3}) {
    const LinearProbe probe = fit_linear_probe(x, labels, kClasses, {.l2 = l2, .max_steps = 5000, .tolerance = 1e-4});
    INFO("l2 " << l2 << ", " << probe.steps << " steps");
    CHECK(probe.converged);
    const std::vector<float> centred = sub(x, probe.centre).to_vector();
    const std::vector<float> zero_w(static_cast<std::size_t>(kClasses * kDim)), zero_b(kClasses);
    const double first = gradient_norm(centred, zero_w, zero_b, labels, kDim, l2);
    CHECK(gradient_norm(centred, probe.w.to_vector(), probe.b.to_vector(), labels, kDim, l2) <= 2e-4 * first);
    CHECK(fit_linear_probe(x, labels, kClasses, {.l2 = l2, .max_steps = 5000, .tolerance = 1e-4}).w.to_vector() == probe.w.to_vector());
    // Products of inputs() and classes() are the logits.
    const Tensor logits = matmul(probe.inputs(x), probe.classes(), {.transpose_b = true});
    const Tensor direct = linear(sub(x, probe.centre), probe.w, probe.b);
    const std::vector<float> a = logits.to_vector(), b = direct.to_vector();
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-5));
  }
  CHECK_FALSE(fit_linear_probe(x, labels, kClasses, {.l2 = 1e-3, .max_steps = 3, .tolerance = 1e-4}).converged);
}

}  // namespace
}  // namespace twinlens::test
