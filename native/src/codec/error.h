// Failures inside the codec are exceptions; guard() turns them into the C interface's zest_error.
#pragma once

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>

#include "hash.h"
#include "zest_codec.h"

namespace zest {

// Carries a finished zest_error, so that throwing needs no allocation beyond the exception itself.
class Failure {
public:
    explicit Failure(const zest_error &error) : error_(error) {}
    const zest_error &error() const { return error_; }

private:
    zest_error error_;
};

__attribute__((format(printf, 2, 3))) inline zest_error make_error(zest_status status, const char *format, ...) {
    zest_error error{};
    error.status = status;
    va_list args;
    va_start(args, format);
    std::vsnprintf(error.message, sizeof error.message, format, args);
    va_end(args);
    return error;
}

[[noreturn]] inline void throw_system(const char *what, int number) {
    zest_error error = make_error(ZEST_SYSTEM, "%s", what);
    error.sys_errno = number;
    throw Failure(error);
}

// Runs `body` and returns its status; nothing escapes.
template <typename Body>
zest_status guard(zest_error *err, Body &&body) noexcept {
    try {
        body();
        return ZEST_OK;
    } catch (const Failure &failure) {
        *err = failure.error();
    } catch (const std::bad_alloc &) {
        *err = make_error(ZEST_NO_MEMORY, "out of memory");
    } catch (...) {
        *err = make_error(ZEST_BAD_ARGUMENT, "unexpected failure in the native codec");
    }
    return err->status;
}

}  // namespace zest
