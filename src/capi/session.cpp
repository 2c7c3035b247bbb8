// SPDX-License-Identifier: Apache-2.0
// The theory of the C ABI: each function checks its arguments for NULL, runs one call of the client
// on bare handles inside guarded(), and turns the outcome into a negative errno. Nothing is kept
// here: what a function gives out is the client's object behind an opaque struct.
#include "capi/session.hpp"

#include "capi/guarded.hpp"

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace accelmm {

namespace {

Result<accelmm_session*> wrap(Result<std::shared_ptr<ClientLink>> link) {
  if (!link) return fail(link.error());
  return new accelmm_session{std::move(*link)};
}

// Makes a session with `connect` and hands it to a caller in C.
template <class Connect>
int open_session(accelmm_session** session, Connect connect) noexcept {
  return guarded([&] {
    const auto opened = wrap(connect());
    if (!opened) return to_c(opened.error());
    *session = *opened;
    return 0;
  });
}

}  // namespace

Result<accelmm_session*> make_session(std::unique_ptr<Channel> channel) {
  return wrap(ClientLink::create(std::move(channel)));
}

}  // namespace accelmm

using accelmm::ClientLink;
using accelmm::NodeKind;

extern "C" {

int accelmm_session_connect(uint32_t device, uint32_t node, accelmm_session** session) {
  if (session == nullptr || (node != ACCELMM_NODE_COMPUTE && node != ACCELMM_NODE_CONTROL))
    return -EINVAL;
  const auto kind = node == ACCELMM_NODE_COMPUTE ? NodeKind::compute : NodeKind::control;
  return accelmm::open_session(session, [&] { return ClientLink::connect(device, kind, {}); });
}

int accelmm_session_connect_path(const char* path, accelmm_session** session) {
  if (path == nullptr || session == nullptr) return -EINVAL;
  return accelmm::open_session(session, [&] { return ClientLink::connect(std::string(path)); });
}

void accelmm_session_close(accelmm_session* session) {
  delete session;
}

int accelmm_session_get_node(const accelmm_session* session) {
  if (session == nullptr) return -EINVAL;
  const bool compute = session->link->facts().node == NodeKind::compute;
  return compute ? ACCELMM_NODE_COMPUTE : ACCELMM_NODE_CONTROL;
}

int accelmm_session_get_device(const accelmm_session* session) {
  if (session == nullptr) return -EINVAL;
  return static_cast<int>(session->link->facts().device);
}

int accelmm_session_get_number(const accelmm_session* session, uint64_t* number) {
  if (session == nullptr || number == nullptr) return -EINVAL;
  *number = session->link->facts().session;
  return 0;
}

int accelmm_session_ioctl(accelmm_session* session, uint32_t command, void* args,
                          struct accelmm_ioctl_fds* fds) {
  using namespace accelmm;
  if (fds != nullptr) fds->out_count = 0;
  if (session == nullptr || (args == nullptr && _IOC_SIZE(command) != 0)) return -EINVAL;
  if (fds != nullptr && fds->in_count > ACCELMM_MAX_FDS) return -EINVAL;
  return guarded([&] {
    std::array<FdView, ACCELMM_MAX_FDS> in;
    const std::size_t in_count = fds == nullptr ? 0 : fds->in_count;
    for (std::size_t i = 0; i < in_count; ++i) in[i] = FdView(fds->in[i]);
    const std::span bytes(static_cast<std::byte*>(args), _IOC_SIZE(command));
    std::vector<UniqueFd> out;
    const auto done = session->link->ioctl(command, bytes, std::span(in).first(in_count), out);
    if (!done || fds == nullptr) return to_c(done);
    for (UniqueFd& fd : out) fds->out[fds->out_count++] = fd.release();
    return 0;
  });
}

}  // extern "C"
