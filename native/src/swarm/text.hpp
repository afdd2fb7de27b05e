// Text that goes to the user, and settings that come as text.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace zest {

// Cut to the room that there is, and ended.
inline void copy_text(char *out, std::size_t capacity, std::string_view text) {
    auto const n = std::min(capacity - 1, text.size());
    std::memcpy(out, text.data(), n);
    out[n] = 0;
}

// Only what can be printed: a stranger's words are shown to the user.
inline std::string printable(std::string_view text, std::size_t most = 120) {
    std::string out(text.substr(0, most));
    std::replace_if(
        out.begin(), out.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
    return out;
}

// The lines of a text that are not empty.
inline std::vector<std::string> lines_of(char const *text) {
    std::vector<std::string> out;
    for (std::string_view rest(text ? text : ""); !rest.empty();) {
        auto const end = std::min(rest.find('\n'), rest.size());
        if (end) out.emplace_back(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return out;
}

// Of "host:port", "[::1]:port" or a URL: the host, without brackets.
inline std::string host_of(std::string_view text) {
    if (auto const at = text.find("://"); at != text.npos) text.remove_prefix(at + 3);
    if (!text.empty() && text.front() == '[') return std::string(text.substr(1, text.find(']') - 1));
    return std::string(text.substr(0, text.find_first_of(":/?")));
}

}  // namespace zest
