// Requests by libcurl, each with a multi handle of its own: it runs on the thread that asks, which may be woken up.
#include <curl/curl.h>
#include <openssl/ssl.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "zest_http.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr long receive_size = 256 * 1024;
constexpr size_t message_max = sizeof(zest_http_error{}.message);

zest_http_status fail(zest_http_error *err, zest_http_status status, const char *message) {
    err->status = status;
    std::strncpy(err->message, message, message_max - 1);
    err->message[message_max - 1] = 0;
    return status;
}

zest_http_status status_of(CURLcode code, bool was_sent) {
    switch (code) {
        case CURLE_OK:
            return ZEST_HTTP_OK;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_SSL_ISSUER_ERROR:
        case CURLE_SSL_INVALIDCERTSTATUS:
            return ZEST_HTTP_UNTRUSTED;
        case CURLE_OPERATION_TIMEDOUT:
            return was_sent ? ZEST_HTTP_STALLED : ZEST_HTTP_NO_CONNECT;
        case CURLE_URL_MALFORMAT:
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_OUT_OF_MEMORY:
        case CURLE_BAD_FUNCTION_ARGUMENT:
        case CURLE_UNKNOWN_OPTION:
        case CURLE_WRITE_ERROR:  // by on_head alone: the head is too long
            return ZEST_HTTP_BAD_REQUEST;
        default:
            return ZEST_HTTP_BROKEN;
    }
}

struct MultiFree {
    void operator()(CURLM *multi) const { curl_multi_cleanup(multi); }
};
struct EasyFree {
    void operator()(CURL *easy) const { curl_easy_cleanup(easy); }
};
struct LinesFree {
    void operator()(curl_slist *lines) const { curl_slist_free_all(lines); }
};

// The multi handle is what keeps the connection; it goes after the easy handle that is in it.
struct Handles {
    std::unique_ptr<CURLM, MultiFree> multi;
    std::unique_ptr<CURL, EasyFree> easy;
};

// Handles that are not in use, by what they last asked. Shared by the client and its GETs, which may outlive it.
class Idle {
public:
    explicit Idle(size_t most) : most_(most) {}

    // One that has a connection to this origin, or a new one.
    Handles take(const std::string &origin) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            const auto found =
                std::find_if(kept_.rbegin(), kept_.rend(), [&](const Kept &one) { return one.origin == origin; });
            if (found != kept_.rend()) {
                Handles handles = std::move(found->handles);
                kept_.erase(std::next(found).base());
                return handles;
            }
        }
        Handles made;
        made.multi.reset(curl_multi_init());
        made.easy.reset(curl_easy_init());
        if (!made.multi || !made.easy) throw std::bad_alloc();
        curl_multi_setopt(made.multi.get(), CURLMOPT_MAXCONNECTS, 1L);
        return made;
    }

    void put(std::string origin, Handles handles) {
        std::list<Kept> too_many;  // closed without the lock
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            kept_.push_back({std::move(origin), std::move(handles)});
            while (kept_.size() > most_) too_many.splice(too_many.end(), kept_, kept_.begin());
        }
    }

    void close() {
        std::list<Kept> gone;
        const std::lock_guard<std::mutex> lock(mutex_);
        most_ = 0;
        gone.swap(kept_);
    }

private:
    struct Kept {
        std::string origin;
        Handles handles;
    };

    std::mutex mutex_;
    size_t most_;
    std::list<Kept> kept_;  // the latest at the end
};

// Certificates that are trusted, read once for all connections: that takes as long as ten requests.
class Trusted {
public:
    // Null if there are none at this place.
    X509_STORE *at(const std::string &path) {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::unique_ptr<X509_STORE, StoreFree> &store = stores_[path];
        if (!store) {
            store.reset(X509_STORE_new());
            if (!store) throw std::bad_alloc();
            const char *file = is_directory(path.c_str()) ? nullptr : path.c_str();
            if (X509_STORE_load_locations(store.get(), file, file == nullptr ? path.c_str() : nullptr) != 1) {
                stores_.erase(path);
                return nullptr;
            }
            // Whatever is listed is trusted, also where it is not the root of a chain.
            X509_STORE_set_flags(store.get(), X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
        }
        return store.get();
    }

private:
    struct StoreFree {
        void operator()(X509_STORE *store) const { X509_STORE_free(store); }
    };

    static bool is_directory(const char *path) {
        struct stat found {};
        return ::stat(path, &found) == 0 && S_ISDIR(found.st_mode);
    }

    std::mutex mutex_;
    std::map<std::string, std::unique_ptr<X509_STORE, StoreFree>> stores_;
};

// Scheme and authority: what an url has before its path. A connection is not to be looked for anywhere else.
std::string origin_of(const std::string &url, const std::string &proxy, const char *trusted) {
    const size_t scheme = url.find("://");
    const size_t path = scheme == std::string::npos ? 0 : url.find_first_of("/?#", scheme + 3);
    return url.substr(0, path) + '\n' + proxy + '\n' + trusted;
}

// A forked child has copies of everything, and the same sockets: to end a connection there would tell the server that
// the parent has ended it. What belongs to the parent is left as it is.
class Owner {
public:
    bool is_here() const { return ::getpid() == pid_; }

private:
    pid_t pid_ = ::getpid();
};

}  // namespace

struct zest_http_client {
    Owner owner;
    std::string user_agent;
    uint32_t connect_timeout_ms;
    uint32_t read_timeout_ms;
    std::shared_ptr<Idle> idle;
    std::shared_ptr<Trusted> trusted = std::make_shared<Trusted>();
};

struct zest_http_get {
public:
    const Owner owner;

    zest_http_get(const zest_http_client &client, const char *url, const char *headers, const uint8_t *body,
                  size_t body_size, bool takes_gzip, const char *proxy, const char *no_proxy, const char *trusted)
        : idle_(client.idle),
          trusted_(client.trusted),
          origin_(origin_of(url, std::string(proxy) + '\n' + no_proxy, trusted)),
          read_timeout_(client.read_timeout_ms),
          has_body_(body != nullptr) {
        head_.reserve(1024);
        if (strncasecmp(url, "https:", 6) == 0 || strncasecmp(proxy, "https:", 6) == 0) {
            store_ = trusted_->at(trusted);
            if (store_ == nullptr) throw CURLE_SSL_CACERT_BADFILE;
        }
        for (const char *line = headers; *line != 0;) {
            const char *end = std::strchr(line, '\n');
            const std::string text(line, end == nullptr ? std::strlen(line) : static_cast<size_t>(end - line));
            curl_slist *longer = curl_slist_append(lines_.get(), text.c_str());
            if (longer == nullptr) throw std::bad_alloc();
            if (!lines_) lines_.reset(longer);
            if (end == nullptr) break;
            line = end + 1;
        }
        handles_ = idle_->take(origin_);
        CURL *easy = handles_.easy.get();
        // Whatever an earlier GET has set; connections are the multi handle's.
        curl_easy_reset(easy);
        set(CURLOPT_URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500
        set(CURLOPT_PROTOCOLS_STR, "http,https");
#else
        set(CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
        set(CURLOPT_PATH_AS_IS, 1L);  // signatures cover it
        set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_NONE));
        set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
        set(CURLOPT_HTTPHEADER, lines_.get());
        set(CURLOPT_USERAGENT, client.user_agent.c_str());
        if (has_body_) {
            set(CURLOPT_POST, 1L);
            set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body_size));
            set(CURLOPT_POSTFIELDS, reinterpret_cast<const char *>(body));
        }
        if (takes_gzip) set(CURLOPT_ACCEPT_ENCODING, "gzip");
        set(CURLOPT_PROXY, proxy);
        set(CURLOPT_NOPROXY, no_proxy);
        set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        for (const CURLoption own : {CURLOPT_CAINFO, CURLOPT_CAPATH, CURLOPT_PROXY_CAINFO, CURLOPT_PROXY_CAPATH}) {
            set(own, static_cast<const char *>(nullptr));
        }
        set(CURLOPT_SSL_CTX_FUNCTION, static_cast<curl_ssl_ctx_callback>(&zest_http_get::on_tls));
        set(CURLOPT_SSL_CTX_DATA, this);
        set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(client.connect_timeout_ms));
        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_BUFFERSIZE, receive_size);
        set(CURLOPT_ERRORBUFFER, message_);
        set(CURLOPT_HEADERFUNCTION, static_cast<curl_write_callback>(&zest_http_get::on_head));
        set(CURLOPT_HEADERDATA, this);
        set(CURLOPT_WRITEFUNCTION, static_cast<curl_write_callback>(&zest_http_get::on_body));
        set(CURLOPT_WRITEDATA, this);
        set(CURLOPT_PREREQFUNCTION, static_cast<curl_prereq_callback>(&zest_http_get::on_sending));
        set(CURLOPT_PREREQDATA, this);
        if (curl_multi_add_handle(handles_.multi.get(), easy) != CURLM_OK) throw std::bad_alloc();
    }

    zest_http_get(const zest_http_get &) = delete;
    zest_http_get &operator=(const zest_http_get &) = delete;

    ~zest_http_get() {
        // The last bytes may have come without libcurl having said that they were the last.
        if (!is_done_ && is_answered_ && !is_aborted_ && !has_more()) perform();
        const bool is_whole = is_done_ && result_ == CURLE_OK && !has_more();
        curl_multi_remove_handle(handles_.multi.get(), handles_.easy.get());
        if (is_whole) {
            // Nothing of this GET may be looked at by the next one.
            curl_easy_reset(handles_.easy.get());
            idle_->put(std::move(origin_), std::move(handles_));
        }
    }

    zest_http_status head(const char **text, size_t *size, zest_http_error *err) {
        const Clock::time_point began = Clock::now();
        while (!is_answered_ && !is_done_ && !is_aborted_) {
            if (!advance(began, Clock::time_point::max())) break;
        }
        if (is_answered_ && !is_aborted_) {
            *text = head_.data();
            *size = head_.size();
            return ZEST_HTTP_OK;
        }
        return failure(err);
    }

    zest_http_status read(uint8_t *out, size_t size, uint32_t most_ms, size_t *count, zest_http_error *err) {
        const Clock::time_point began = Clock::now(), until = began + milliseconds(most_ms);
        out_ = out;
        wanted_ = size;
        have_ = 0;
        const size_t left = std::min(size, spill_.size() - spilt_);
        if (left != 0) std::memcpy(out, spill_.data() + spilt_, left);
        have_ = left;
        spilt_ += left;
        if (is_paused_ && have_ < size && !is_done_) {
            is_paused_ = false;
            curl_easy_pause(handles_.easy.get(), CURLPAUSE_CONT);
        }
        while (have_ < wanted_ && !is_done_ && !is_aborted_) {
            if (!advance(began, have_ == 0 ? Clock::time_point::max() : until)) break;
            if (have_ != 0 && Clock::now() >= until) break;
        }
        out_ = nullptr;
        *count = have_;
        wanted_ = have_ = 0;
        if (is_aborted_ || (*count == 0 && (is_stalled_ || result_ != CURLE_OK))) return failure(err);
        return ZEST_HTTP_OK;
    }

    void abort() {
        is_aborted_ = true;
        curl_multi_wakeup(handles_.multi.get());
    }

private:
    template <typename Value>
    void set(CURLoption option, Value value) {
        const CURLcode code = curl_easy_setopt(handles_.easy.get(), option, value);
        if (code == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
        if (code != CURLE_OK) throw code;
    }

    bool has_more() const { return is_paused_ || spilt_ < spill_.size(); }

    // Once what can be done now, and a wait until something can be, at the latest until then; false when nothing has
    // come for too long. `began`: before that nobody was there to take what comes.
    bool advance(Clock::time_point began, Clock::time_point until) {
        has_moved_ = false;
        perform();
        if (is_done_ || is_aborted_ || has_moved_) {
            latest_ = Clock::now();
            return true;
        }
        const Clock::time_point now = Clock::now();
        if (has_body_) {
            curl_off_t uploaded = 0;
            curl_easy_getinfo(handles_.easy.get(), CURLINFO_SIZE_UPLOAD_T, &uploaded);
            if (uploaded != uploaded_) latest_ = now;
            uploaded_ = uploaded;
        }
        Clock::time_point wake = std::min(until, now + milliseconds(1000));
        // Until it is sent libcurl looks at the time.
        if (was_sent_) {
            const Clock::time_point most = std::max(latest_, began) + read_timeout_;
            if (now >= most) {
                is_stalled_ = true;
                return false;
            }
            wake = std::min(wake, most);
        }
        if (wake <= now) return true;
        const auto wait = std::chrono::ceil<milliseconds>(wake - now);
        curl_multi_poll(handles_.multi.get(), nullptr, 0, static_cast<int>(wait.count()), nullptr);
        return true;
    }

    void perform() {
        int running = 0, left = 0;
        if (curl_multi_perform(handles_.multi.get(), &running) != CURLM_OK) {
            is_done_ = true;
            result_ = CURLE_OUT_OF_MEMORY;
            return;
        }
        while (const CURLMsg *message = curl_multi_info_read(handles_.multi.get(), &left)) {
            if (message->msg != CURLMSG_DONE) continue;
            is_done_ = true;
            result_ = message->data.result;
        }
    }

    zest_http_status failure(zest_http_error *err) const {
        if (is_aborted_) return fail(err, ZEST_HTTP_BROKEN, "aborted");
        if (is_stalled_) return fail(err, ZEST_HTTP_STALLED, "no byte in time");
        if (is_done_ && result_ == CURLE_OK) return fail(err, ZEST_HTTP_BROKEN, "the answer has no head");
        long number = 0;
        curl_easy_getinfo(handles_.easy.get(), CURLINFO_OS_ERRNO, &number);
        std::string text = message_;
        if (is_head_too_long_) {
            text = "the head of the answer is too long";
        } else if (result_ == CURLE_COULDNT_CONNECT && number != 0) {
            text = "cannot connect: " + std::system_category().message(static_cast<int>(number));
        } else if (text.empty() || text.find("://") != std::string::npos) {
            // What libcurl says of a proxy may hold all of its url, and so a password.
            text = curl_easy_strerror(result_);
        }
        return fail(err, status_of(result_, was_sent_), text.c_str());
    }

    static size_t on_head(char *data, size_t, size_t size, void *self) {
        return static_cast<zest_http_get *>(self)->take_head(data, size);
    }
    static size_t on_body(char *data, size_t, size_t size, void *self) {
        return static_cast<zest_http_get *>(self)->take_body(data, size);
    }
    static CURLcode on_tls(CURL *, void *context, void *self) {
        X509_STORE *store = static_cast<zest_http_get *>(self)->store_;
        if (store == nullptr) return CURLE_SSL_CACERT_BADFILE;
        SSL_CTX_set1_cert_store(static_cast<SSL_CTX *>(context), store);
        return CURLE_OK;
    }
    static int on_sending(void *self, char *, char *, int, int) {
        auto *get = static_cast<zest_http_get *>(self);
        get->was_sent_ = get->has_moved_ = true;
        return CURL_PREREQFUNC_OK;
    }

    // A line at a time. What comes after the body (trailer fields) is not looked at.
    size_t take_head(const char *data, size_t size) {
        has_moved_ = true;
        if (is_answered_) return size;
        const bool is_first = size >= 5 && std::memcmp(data, "HTTP/", 5) == 0;
        if (is_first) head_.clear();
        if (head_.size() + size > ZEST_HTTP_HEAD_MAX) {
            is_head_too_long_ = true;
            return 0;
        }
        try {
            head_.append(data, size);
        } catch (const std::bad_alloc &) {
            return 0;
        }
        long code = 0;
        curl_easy_getinfo(handles_.easy.get(), CURLINFO_RESPONSE_CODE, &code);
        const bool is_end = (size == 2 && data[0] == '\r') || (size == 1 && data[0] == '\n');
        if (is_end && (code < 100 || code >= 200)) is_answered_ = true;
        return size;
    }

    size_t take_body(const char *data, size_t size) {
        has_moved_ = true;
        if (have_ == wanted_) {
            is_paused_ = true;
            return CURL_WRITEFUNC_PAUSE;
        }
        const size_t taken = std::min(size, wanted_ - have_);
        std::memcpy(out_ + have_, data, taken);
        have_ += taken;
        if (taken < size) {
            // All that was spilt before has been handed out: the buffer was not full.
            try {
                spill_.assign(data + taken, data + size);
            } catch (const std::bad_alloc &) {
                return 0;
            }
            spilt_ = 0;
        }
        return size;
    }

    const std::shared_ptr<Idle> idle_;
    const std::shared_ptr<Trusted> trusted_;
    X509_STORE *store_ = nullptr;
    std::string origin_;
    const milliseconds read_timeout_;
    const bool has_body_;
    curl_off_t uploaded_ = 0;
    std::unique_ptr<curl_slist, LinesFree> lines_;
    char message_[CURL_ERROR_SIZE] = {};
    Handles handles_;
    std::string head_;
    std::vector<char> spill_;  // of what libcurl gave, the part that had no room
    size_t spilt_ = 0;         // of that, handed out
    uint8_t *out_ = nullptr;
    size_t wanted_ = 0;
    size_t have_ = 0;
    bool was_sent_ = false;
    bool is_answered_ = false;
    bool is_paused_ = false;
    bool has_moved_ = false;
    bool is_stalled_ = false;
    bool is_head_too_long_ = false;
    bool is_done_ = false;
    CURLcode result_ = CURLE_OK;
    Clock::time_point latest_{};
    std::atomic<bool> is_aborted_{false};
};

extern "C" {

int32_t zest_http_abi(void) { return ZEST_HTTP_ABI; }

zest_http_client *zest_http_client_new(const char *user_agent, uint32_t connect_timeout_ms, uint32_t read_timeout_ms,
                                       uint32_t idle_max, zest_http_error *err) {
    // Counted by libcurl, so that others in the process may use it too. It is never undone: GETs may outlive us.
    static const CURLcode is_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    const char *tls = curl_version_info(CURLVERSION_NOW)->ssl_version;
    if (tls == nullptr || std::strstr(tls, "OpenSSL") == nullptr) {
        fail(err, ZEST_HTTP_BAD_REQUEST, "libcurl was built without OpenSSL");
        return nullptr;
    }
    if (is_ready != CURLE_OK) {
        fail(err, ZEST_HTTP_BAD_REQUEST, curl_easy_strerror(is_ready));
        return nullptr;
    }
    try {
        return new zest_http_client{
            {}, user_agent, connect_timeout_ms, read_timeout_ms, std::make_shared<Idle>(idle_max)};
    } catch (const std::bad_alloc &) {
        fail(err, ZEST_HTTP_BAD_REQUEST, "out of memory");
        return nullptr;
    }
}

void zest_http_client_free(zest_http_client *client) {
    if (client != nullptr && client->owner.is_here()) delete client;
}

void zest_http_client_close(zest_http_client *client) { client->idle->close(); }

zest_http_get *zest_http_get_new(zest_http_client *client, const char *url, const char *headers, const uint8_t *body,
                                 size_t body_size, int32_t takes_gzip, const char *proxy, const char *no_proxy,
                                 const char *trusted, zest_http_error *err) {
    try {
        return new zest_http_get(*client, url, headers, body, body_size, takes_gzip != 0, proxy, no_proxy, trusted);
    } catch (const CURLcode code) {
        const bool is_untrusted = code == CURLE_SSL_CACERT_BADFILE;
        fail(err, is_untrusted ? ZEST_HTTP_UNTRUSTED : ZEST_HTTP_BAD_REQUEST, curl_easy_strerror(code));
    } catch (const std::bad_alloc &) {
        fail(err, ZEST_HTTP_BAD_REQUEST, "out of memory");
    }
    return nullptr;
}

zest_http_status zest_http_get_head(zest_http_get *get, const char **head, size_t *size, zest_http_error *err) {
    return get->head(head, size, err);
}

zest_http_status zest_http_get_read(zest_http_get *get, uint8_t *out, size_t size, uint32_t most_ms, size_t *count,
                                    zest_http_error *err) {
    return get->read(out, size, most_ms, count, err);
}

void zest_http_get_abort(zest_http_get *get) { get->abort(); }

void zest_http_get_free(zest_http_get *get) {
    if (get != nullptr && get->owner.is_here()) delete get;
}
}
