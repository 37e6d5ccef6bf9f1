#include "twinlens/clip/report.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>

#include "clip/src/png.h"
#include "clip/src/text/unicode.h"

#include "twinlens/core/file.h"

namespace twinlens {
namespace {

// As UTF-8, which the page says it is: bytes of file names and captions that are not become U+FFFD.
std::string escape(const std::string& text) {
  std::string out;
  for (const char c : valid_utf8(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

struct Curve {
  std::string key, title;
  std::vector<std::pair<double, double>> points;  // (step, value)
};

// At most kMostPoints of them, evenly: a long run's page stays small. The last stays.
constexpr std::size_t kMostPoints = 800;
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points) {
  if (points.size() <= kMostPoints) return points;
  std::vector<std::pair<double, double>> out;
  for (std::size_t k = 0; k < kMostPoints; ++k) out.push_back(points[k * (points.size() - 1) / (kMostPoints - 1)]);
  return out;
}

// The curves worth a picture, in this order; keys that never occur are left out.
std::vector<Curve> read_curves(const std::filesystem::path& metrics_jsonl) {
  std::vector<Curve> curves{{"loss", "Training loss", {}},
                            {"clip_val_loss", "Validation loss", {}},
                            {"image_to_text_R@1", "Image to text R@1 (validation)", {}},
                            {"text_to_image_R@1", "Text to image R@1 (validation)", {}},
                            {"logit_scale", "Logit scale", {}},
                            {"lr", "Learning rate", {}},
                            {"grad_norm", "Gradient norm", {}},
                            {"data_wait_share", "Share of time spent waiting for data", {}},
                            {"samples_per_second", "Pairs per second", {}}};
  std::ifstream file(metrics_jsonl);
  std::string line;
  while (std::getline(file, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number()) continue;
    for (Curve& curve : curves) {
      const auto it = json.find(curve.key);
      if (it != json.end() && it->is_number()) curve.points.emplace_back(json["step"].get<double>(), it->get<double>());
    }
  }
  for (Curve& curve : curves) curve.points = thinned(curve.points);
  curves.erase(std::remove_if(curves.begin(), curves.end(), [](const Curve& c) { return c.points.size() < 2; }), curves.end());
  return curves;
}

std::string tick(double value) {
  return std::abs(value) >= 1000.0 && std::abs(value) < 1e6 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

std::string svg(const Curve& curve) {
  constexpr double kWidth = 360, kHeight = 150, kLeft = 60, kBottom = 22, kTop = 8;
  double low = curve.points[0].second, high = low;
  for (const auto& [x, y] : curve.points) {
    low = std::min(low, y);
    high = std::max(high, y);
  }
  if (high == low) high = low + (low == 0.0 ? 1.0 : std::abs(low) * 0.1);
  const double first = curve.points.front().first, last = std::max(curve.points.back().first, first + 1.0);
  const auto px = [&](double x) { return kLeft + (x - first) / (last - first) * (kWidth - kLeft - 8); };
  const auto py = [&](double y) { return kTop + (high - y) / (high - low) * (kHeight - kBottom - kTop); };
  std::string path;
  for (const auto& [x, y] : curve.points) path += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
  return fmt::format(
      "<figure><figcaption>{}</figcaption><svg viewBox='0 0 {} {}' role='img' aria-label='{}'>"
      "<line x1='{}' y1='{}' x2='{}' y2='{}'/><line x1='{}' y1='{}' x2='{}' y2='{}'/>"
      "<text x='{}' y='{}' text-anchor='end'>{}</text><text x='{}' y='{}' text-anchor='end'>{}</text>"
      "<text x='{}' y='{}'>step {:.0f}</text><text x='{}' y='{}' text-anchor='end'>{:.0f}</text>"
      "<polyline points='{}'/></svg></figure>",
      curve.title, kWidth, kHeight, curve.title, kLeft, kTop, kLeft, kHeight - kBottom, kLeft, kHeight - kBottom, kWidth - 8,
      kHeight - kBottom, kLeft - 5, kTop + 9, tick(high), kLeft - 5, kHeight - kBottom, tick(low), kLeft, kHeight - 6, first, kWidth - 8,
      kHeight - 6, last, path);
}

std::string picture(const Image& image, const std::string& title) {
  return fmt::format("<img src='{}' alt=\"{}\" title=\"{}\">", png_data_uri(image), escape(title), escape(title));
}

std::string table(const ReportTable& t) {
  std::string out = "<h2>" + escape(t.title) + "</h2>";
  if (!t.note.empty()) out += "<p>" + escape(t.note) + "</p>";
  out += "<table><tr>";
  for (const std::string& cell : t.header) out += "<th>" + escape(cell) + "</th>";
  out += "</tr>";
  for (const auto& row : t.rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + escape(cell) + "</td>";
    out += "</tr>";
  }
  return out + "</table>";
}

constexpr const char* kStyle = R"(:root{color-scheme:light dark}
body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse}td,th{padding:.25rem .7rem;border-bottom:1px solid #8884;text-align:left}
td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:1rem}
figure{margin:0}figcaption{font-size:.9rem}
svg{width:100%}svg line{stroke:#888;stroke-width:1}svg polyline{fill:none;stroke:#2f6fde;stroke-width:1.6}svg text{font-size:10px;fill:#888}
.query{display:flex;flex-wrap:wrap;align-items:center;gap:.5rem;margin:.35rem 0}
.query b{width:17rem;font-weight:500}.query b,.mistake span{min-width:0;overflow-wrap:anywhere}
.query img,.mistake img{flex:none}.query img,.mistake img{width:56px;height:56px;border-radius:6px;border:3px solid #c33;background:#fff}
.query img.ok{border-color:#2a9d4a}
.mistakes{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:.6rem}
.mistake{display:flex;gap:.6rem;align-items:center;font-size:.88rem}
details{margin-top:2rem}code{font-size:.88rem})";

}  // namespace

void write_report(const std::filesystem::path& page, const Report& r, const std::filesystem::path& metrics_jsonl) {
  std::string html = "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>" +
                     (r.refresh_seconds > 0 ? fmt::format("<meta http-equiv='refresh' content='{}'>", r.refresh_seconds) : std::string()) +
                     "<title>" + escape(r.title) + "</title><style>" + kStyle + "</style></head><body><h1>" + escape(r.title) + "</h1><p>" +
                     escape(r.summary) + "</p>";
  for (const ReportTable& t : r.tables) html += table(t);
  if (const std::vector<Curve> curves = read_curves(metrics_jsonl); !curves.empty()) {
    html += "<h2>Curves</h2><div class='curves'>";
    for (const Curve& curve : curves) html += svg(curve);
    html += "</div>";
  }
  if (!r.queries.empty()) {
    html += "<h2>What a caption finds</h2><p>The pictures nearest to each caption, best first. Green frames are right, red ones wrong.</p>";
    for (const ReportQuery& q : r.queries) {
      html += "<div class='query'><b>" + escape(q.text) + "</b>";
      for (const ReportPicture& p : q.pictures) {
        std::string image = picture(p.image, p.caption);
        if (p.correct) image.insert(4, " class='ok'");
        html += image;
      }
      html += "</div>";
    }
  }
  if (!r.mistakes.empty()) {
    html += "<h2>Wrong answers</h2><p>Pictures whose nearest caption is not their own.</p><div class='mistakes'>";
    for (const ReportMistake& m : r.mistakes) {
      html += "<div class='mistake'>" + picture(m.image, m.wanted) + "<span>said <b>" + escape(m.got) + "</b><br>is " + escape(m.wanted) +
              "</span></div>";
    }
    html += "</div>";
  }
  if (!r.settings.empty()) {
    html += "<details><summary>Settings</summary><table>";
    for (const auto& [name, value] : r.settings)
      html += "<tr><td><code>" + escape(name) + "</code></td><td>" + escape(value) + "</td></tr>";
    html += "</table></details>";
  }
  atomic_write(page.string(), html + "</body></html>\n");
}

}  // namespace twinlens
