// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/qemu_wire.hpp"

#include <accelmm/error.hpp>

#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace accelmm::test {

/// A number in text, with 0x or without, from its first digit on; 0 where there is none.
[[nodiscard]] inline std::uint64_t parse_hex(std::string_view text) {
  if (text.starts_with("0x")) text.remove_prefix(2);
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

[[nodiscard]] inline std::string to_hex(std::uint64_t value) {
  char digits[17];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, 16);
  return "0x" + std::string(digits, end.ptr);
}

/// QEMU's gdb stub: sets registers of the stopped CPU and runs commands of the monitor.
///
/// The monitor behind it answers a command in tens of microseconds where QMP's
/// human-monitor-command takes hundreds, and takes any number of them at once. Packets are not
/// acknowledged: QEMU takes the next one for that.
/// Source  "GDB Remote Serial Protocol", GDB's manual, appendix E
class GdbStub {
 public:
  /// `architecture` is the name by which gdb asks for registers.
  /// Errors  io_error: not what a stub says.
  [[nodiscard]] static Result<GdbStub> connect(QemuWire wire, const std::string& architecture) {
    GdbStub stub(std::move(wire));
    const auto supported = stub.ask("qSupported:xmlRegisters=" + architecture);
    if (!supported) return fail(supported.error());
    if (auto read = stub.read_register_numbers(); !read) return fail(read.error());
    return stub;
  }

  [[nodiscard]] QemuWire& wire() { return wire_; }

  /// Errors  io_error: no such register, or no answer.
  [[nodiscard]] Result<void> set_register(const std::string& name, std::uint64_t value) {
    const auto number = numbers_.find(name);
    if (number == numbers_.end()) return fail(Errc::io_error, "QEMU's CPU has no such register");
    std::string packet("P");
    packet.append(to_hex(number->second).substr(2)).append("=");
    for (unsigned byte = 0; byte < 8; ++byte) append_hex(packet, (value >> (8 * byte)) & 0xFF);
    const auto answer = ask(packet);
    if (!answer) return fail(answer.error());
    if (*answer != "OK") return fail(Errc::io_error, "QEMU did not set a register");
    return {};
  }

  /// What each command prints. All of them are sent at once.
  [[nodiscard]] Result<std::vector<std::string>> monitor(std::span<const std::string> commands) {
    std::string out;
    for (const std::string& command : commands) {
      std::string packet = "qRcmd,";
      for (const char letter : command) append_hex(packet, static_cast<unsigned char>(letter));
      append_packet(out, packet);
    }
    std::vector<std::string> printed(1);
    bool refused = false;
    const auto sent = wire_.exchange(out, [&](std::string& received) {
      for_each_packet(received, [&](std::string_view packet) {
        if (packet.starts_with('O') && packet != "OK") {
          append_text(printed.back(), packet.substr(1));
          return;
        }
        refused |= packet != "OK";
        printed.emplace_back();
      });
      return printed.size() > commands.size();
    });
    if (!sent) return fail(sent.error());
    if (refused) return fail(Errc::io_error, "QEMU refused a command of its monitor");
    printed.pop_back();
    return printed;
  }

 private:
  explicit GdbStub(QemuWire wire) : wire_(std::move(wire)) {}

  static void append_hex(std::string& to, std::uint64_t byte) {
    constexpr std::string_view digits = "0123456789abcdef";
    to += digits[byte >> 4];
    to += digits[byte & 15];
  }
  static void append_text(std::string& to, std::string_view hex) {
    for (std::size_t at = 0; at + 1 < hex.size(); at += 2)
      to += static_cast<char>(parse_hex(hex.substr(at, 2)));
  }
  static void append_packet(std::string& to, std::string_view content) {
    unsigned sum = 0;
    for (const char letter : content) sum += static_cast<unsigned char>(letter);
    to.append("$").append(content).append("#");
    append_hex(to, sum & 0xFF);
  }

  // Each whole packet "$content#xx" in what was received, which loses them.
  template <class Use>
  static void for_each_packet(std::string& received, Use use) {
    std::size_t used = 0;
    while (true) {
      const std::size_t begin = received.find('$', used);
      const std::size_t end = received.find('#', begin);
      if (begin == std::string::npos || end == std::string::npos || received.size() - end < 3)
        break;
      use(std::string_view(received).substr(begin + 1, end - begin - 1));
      used = end + 3;
    }
    received.erase(0, used);
  }

  [[nodiscard]] Result<std::string> ask(const std::string& question) {
    std::string out;
    append_packet(out, question);
    std::optional<std::string> answer;
    const auto sent = wire_.exchange(out, [&](std::string& received) {
      for_each_packet(received, [&](std::string_view packet) { answer = std::string(packet); });
      return answer.has_value();
    });
    if (!sent) return fail(sent.error());
    return *answer;
  }

  // A file about the CPU, which comes in pieces that begin with m (more) or l (last).
  [[nodiscard]] Result<std::string> read_feature(const std::string& name) {
    std::string text;
    while (true) {
      const auto piece =
          ask("qXfer:features:read:" + name + ":" + to_hex(text.size()).substr(2) + ",7f0");
      if (!piece) return fail(piece.error());
      if (piece->empty() || (piece->front() != 'm' && piece->front() != 'l'))
        return fail(Errc::io_error, "QEMU does not describe its registers");
      text += piece->substr(1);
      if (piece->front() == 'l') return text;
    }
  }

  // What stands between `name="` and the next quotation mark.
  static std::optional<std::string> attribute(std::string_view tag, const std::string& name) {
    const std::size_t begin = tag.find(name + "=\"");
    if (begin == std::string_view::npos) return std::nullopt;
    const std::string_view rest = tag.substr(begin + name.size() + 2);
    return std::string(rest.substr(0, rest.find('"')));
  }

  static std::string without_comments(std::string text) {
    for (std::size_t begin = 0; (begin = text.find("<!--", begin)) != std::string::npos;) {
      const std::size_t end = text.find("-->", begin);
      text.erase(begin, end == std::string::npos ? end : end + 3 - begin);
    }
    return text;
  }

  // Each tag of that kind, as the text between its name and its end.
  template <class Use>
  static void for_each_tag(std::string_view text, const std::string& kind, Use use) {
    for (std::size_t begin = 0; (begin = text.find("<" + kind, begin)) != std::string_view::npos;) {
      const std::size_t end = text.find('>', begin);
      if (end == std::string_view::npos) return;
      use(text.substr(begin, end - begin));
      begin = end;
    }
  }

  // A register without a number follows the one before it; those in comments do not count.
  [[nodiscard]] Result<void> read_register_numbers() {
    const auto target = read_feature("target.xml");
    if (!target) return fail(target.error());
    std::vector<std::string> files;
    for_each_tag(*target, "xi:include ", [&](std::string_view tag) {
      if (auto file = attribute(tag, "href")) files.push_back(std::move(*file));
    });
    std::uint64_t next = 0;
    for (const std::string& file : files) {
      const auto feature = read_feature(file);
      if (!feature) return fail(feature.error());
      for_each_tag(without_comments(*feature), "reg ", [&](std::string_view tag) {
        if (const auto number = attribute(tag, "regnum"))
          std::from_chars(number->data(), number->data() + number->size(), next);
        if (auto name = attribute(tag, " name")) numbers_[std::move(*name)] = next++;
      });
    }
    return {};
  }

  QemuWire wire_;
  std::map<std::string, std::uint64_t> numbers_;
};

}  // namespace accelmm::test
