#pragma once
// HTML character references (&amp; &#233; &eacute) by the rules of the HTML standard, as Python's html.unescape applies them.

#include <string>
#include <string_view>

namespace twinlens {

std::string html_unescape(std::string_view text);

// What a name stands for, written without '&' and with its ';'; null when the standard has no such name.
const std::string* html_entity(std::string_view name);

}  // namespace twinlens
