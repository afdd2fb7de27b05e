// Makes the thread that calls it give way to everything else.
#include <sys/resource.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "zest_codec.h"

extern "C" int32_t zest_give_way(void) {
#ifdef __linux__
    // linux/ioprio.h is missing on older systems: IOPRIO_WHO_PROCESS, which with 0 is this thread, and the idle class.
    constexpr int who_process = 1;
    constexpr int idle = 3 << 13;
    constexpr int nice = 10;
    const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
    const bool quiet = ::setpriority(PRIO_PROCESS, thread, nice) == 0;
    return ::syscall(SYS_ioprio_set, who_process, 0, idle) == 0 && quiet ? 1 : 0;
#elif defined(__APPLE__)
    return ::setpriority(PRIO_DARWIN_THREAD, 0, PRIO_DARWIN_BG) == 0 ? 1 : 0;
#else
    return 0;
#endif
}
