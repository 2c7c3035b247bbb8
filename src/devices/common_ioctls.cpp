// SPDX-License-Identifier: Apache-2.0
#include "devices/common_ioctls.hpp"

#include "devices/compute_session.hpp"
#include "devices/control_session.hpp"

#include <cstddef>
#include <cstring>
#include <memory>

namespace accelmm::devices {
namespace {

using Reserved = IoctlTable::Reserved;

template <class Args>
Args read_args(const IoctlCall& call) {
  Args args;
  ACCELMM_CHECK(call.args.size() == sizeof args);
  std::memcpy(&args, call.args.data(), sizeof args);
  return args;
}

// A handler of `Result<void> answer(IoctlCall&, Args&)`, answered at once.
template <class Args, class Answer>
IoctlTable::Handler at_once(Answer answer) {
  return [answer](IoctlCall& call, Completion done) {
    auto args = read_args<Args>(call);
    const Result<void> result = answer(call, args);
    if (result) std::memcpy(call.args.data(), &args, sizeof args);
    done(result);
  };
}

// A handler of `void answer(Args&, Completion)`, which fills in what it was given until it ends.
template <class Args, class Answer>
IoctlTable::Handler later(Answer answer) {
  return [answer](IoctlCall& call, Completion done) {
    auto args = std::make_unique<Args>(read_args<Args>(call));
    Args& filled = *args;
    answer(filled, Completion([&call, args = std::move(args),
                               done = std::move(done)](Result<void> result) mutable {
             if (result) std::memcpy(call.args.data(), args.get(), sizeof *args);
             done(result);
           }));
  };
}

constexpr Reserved point_reserved(std::size_t point) {
  return {point + offsetof(accelmm_point, reserved), sizeof(accelmm_point::reserved)};
}

// What sessions of both kinds have.
template <class Of>
void add_waits(IoctlTable& table, Of& s) {
  table.add(
      ACCELMM_IOCTL_WAIT, {point_reserved(offsetof(accelmm_wait, point))},
      [&s](IoctlCall& call, Completion done) {
        s.wait(read_args<accelmm_wait>(call), std::move(done));
      },
      IoctlTable::Order::concurrent);
  table.add(ACCELMM_IOCTL_EVENTS,
            {{offsetof(accelmm_events, reserved), sizeof(accelmm_events::reserved)}},
            at_once<accelmm_events>(
                [&s](IoctlCall& call, auto& args) { return s.open_events(call, args); }));
  table.add(ACCELMM_IOCTL_WATCH, {point_reserved(offsetof(accelmm_watch, point))},
            at_once<accelmm_watch>([&s](IoctlCall&, auto& args) { return s.watch(args); }));
}

// What is only answered may hold anything, so that whoever fills it in need not clear it.
template <class Of>
void add_shortage(IoctlTable& table, Of& s) {
  table.add(ACCELMM_IOCTL_SHORTAGE, {},
            at_once<accelmm_shortage>([&s](IoctlCall&, auto& args) { return s.shortage(args); }));
}

}  // namespace

IoctlTable compute_ioctls(ComputeSession& s) {
  IoctlTable table;
  table.add(
      ACCELMM_IOCTL_ALLOC,
      {{offsetof(accelmm_alloc, backing.reserved), sizeof(accelmm_backing_request::reserved)}},
      at_once<accelmm_alloc>([&s](IoctlCall&, auto& args) { return s.allocate(args); }));
  table.add(ACCELMM_IOCTL_FREE, {},
            at_once<accelmm_free>([&s](IoctlCall&, auto& args) { return s.free(args); }));
  table.add(ACCELMM_IOCTL_MAP_CPU, {}, at_once<accelmm_map_cpu>([&s](IoctlCall& call, auto& args) {
              return s.map_cpu(call, args);
            }));
  table.add(
      ACCELMM_IOCTL_MAP_DEVICE, {point_reserved(offsetof(accelmm_map_device, point))},
      at_once<accelmm_map_device>([&s](IoctlCall&, auto& args) { return s.map_device(args); }));
  table.add(
      ACCELMM_IOCTL_UNMAP_DEVICE, {point_reserved(offsetof(accelmm_unmap_device, point))},
      at_once<accelmm_unmap_device>([&s](IoctlCall&, auto& args) { return s.unmap_device(args); }));
  table.add(ACCELMM_IOCTL_EXPORT, {}, at_once<accelmm_export>([&s](IoctlCall& call, auto& args) {
              return s.export_view(call, args);
            }));
  table.add(ACCELMM_IOCTL_IMPORT,
            {{offsetof(accelmm_import, reserved), sizeof(accelmm_import::reserved)}},
            at_once<accelmm_import>(
                [&s](IoctlCall& call, auto& args) { return s.import_view(call, args); }));
  add_waits(table, s);
  table.add(ACCELMM_IOCTL_BACKING,
            {{offsetof(accelmm_backing, reserved), sizeof(accelmm_backing::reserved)}},
            later<accelmm_backing>(
                [&s](auto& args, Completion done) { s.backing(args, std::move(done)); }),
            IoctlTable::Order::concurrent);
  add_shortage(table, s);
  table.add(
      ACCELMM_IOCTL_MAP_MEMORY, {point_reserved(offsetof(accelmm_map_memory, point))},
      at_once<accelmm_map_memory>([&s](IoctlCall&, auto& args) { return s.map_memory(args); }));
  return table;
}

IoctlTable control_ioctls(ControlSession& s) {
  IoctlTable table;
  add_waits(table, s);
  add_shortage(table, s);
  table.add(ACCELMM_IOCTL_DEFRAGMENT, {},
            later<accelmm_defragment>(
                [&s](auto& args, Completion done) { s.defragment(args, std::move(done)); }),
            IoctlTable::Order::concurrent);
  return table;
}

}  // namespace accelmm::devices
