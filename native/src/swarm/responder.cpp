#include "responder.hpp"

#include <algorithm>
#include <new>

#include "clock.hpp"

namespace zest {
namespace {

// Questions of one peer that wait; a client of ours has a few dozen open.
constexpr std::size_t max_queue = 512;
// Of what is said without having been asked. It waits behind the answers, and is not held back by them: who takes all
// that the line carries has answers waiting all the time, and is to hear what is new.
constexpr std::size_t max_unsent_updates_bytes = 16 * 1024;
constexpr std::uint32_t error_busy = 1;
// What one peer may follow, and how many may follow one draft: more are served sooner by those who have all of it.
constexpr std::size_t max_follows = 32;
constexpr unsigned max_followers = 8;
// Chunks of one draft that are answered in one go: who begins late and follows several gets of each in turn.
constexpr std::uint32_t max_passed_on = 16;

}  // namespace

void Responder::on(wire::HaveRequest const &message) {
    Reply reply{What::have, message.id, message.kind};
    reply.swarm = message.swarm;
    reply.proof = message.proof;
    reply.updates = message.updates;
    enqueue(std::move(reply));
}

void Responder::on(wire::ManifestRequest const &message) {
    enqueue({What::manifest,
             message.id,
             message.kind,
             message.hash,
             {message.first, message.first + message.count},
             message.first});
}

void Responder::on(wire::RangeRequest const &message) {
    enqueue({What::range, message.id, message.kind, message.hash, message.chunks, message.chunks.first});
}

void Responder::on(wire::ChunkRequest const &message) {
    enqueue({What::chunk, message.id, Kind::file, message.chunk, {0, 1}, 0});
}

void Responder::on(wire::XorbRequest const &message) {
    enqueue({What::xorb, message.id, Kind::xorb, message.xorb, message.chunks, message.chunks.first});
}

void Responder::on(wire::FollowRequest const &message) {
    if (closed_) return;
    auto const draft = host_.uploads ? host_.drafts.find(message.xorb, message.chunks.first) : nullptr;
    if (!draft || message.chunks.end > draft->chunks.end)
        return link_.send_zest(wire::range_end(message.id, Answer::not_found));
    if (follows_.size() >= max_follows || draft->followers >= max_followers || follows_.count(message.id))
        return link_.send_zest(wire::range_end(message.id, Answer::busy));
    auto const first = draft->chunks.first;
    follows_.try_emplace(message.id, draft, ChunkSpan{message.chunks.first - first, message.chunks.end - first});
    tick();
    host_.followed();
}

void Responder::tick() {
    if (follows_.empty()) return;
    for (auto at = follows_.begin(); at != follows_.end();) {
        auto const here = at++;
        if (!feed(here->first, here->second)) follows_.erase(here);
    }
    pump();
}

// What has come waits its turn like any other answer.
bool Responder::feed(std::uint32_t id, Follow &follow) {
    if (follow.queued) return true;
    // In this order: what came before the end is not overlooked.
    bool const ended = follow.draft->ended();
    auto const come = std::min(follow.draft->count(), follow.end);
    if (come > follow.next) {
        if (queue_.size() >= max_queue) return true;
        Reply reply{What::draft, id};
        reply.chunks = {follow.next, std::min(come, follow.next + max_passed_on)};
        reply.next = follow.next;
        reply.draft = follow.draft;
        follow.next = reply.chunks.end;
        follow.queued = true;
        queue_.push_back(std::move(reply));
        return true;
    }
    if (follow.next == follow.end) return false;
    if (ended) link_.send_zest(wire::range_end(id, Answer::busy));
    return !ended;
}

void Responder::passed_on(Reply const &reply) {
    auto const follow = follows_.find(reply.id);
    if (reply.what != What::draft || follow == follows_.end() || follow->second.draft != reply.draft) return;
    follow->second.queued = false;
    if (!feed(follow->first, follow->second)) follows_.erase(follow);
}

void Responder::on(wire::Cancel const &message) {
    host_.updates.forget(link_.number(), message.id);
    follows_.erase(message.id);
    for (auto at = queue_.begin(); at != queue_.end(); ++at) {
        if (at->what == What::have && at->id == message.id) at->updates = false;
        if ((at->what != What::range && at->what != What::draft) || at->id != message.id) continue;
        if (at == queue_.begin())
            at->cancelled = true;  // it may be being read
        else
            queue_.erase(at);
        break;
    }
    pump();
}

void Responder::close() {
    closed_ = true;
    queue_.clear();
    follows_.clear();
    host_.turns.forget(link_.number());
    host_.updates.forget(link_.number());
}

void Responder::refuse_all() {
    if (closed_) return;
    for (auto at = follows_.begin(); at != follows_.end();) {
        auto const here = at++;
        if (here->second.queued) continue;  // it ends with what is queued of it
        link_.send_zest(wire::range_end(here->first, Answer::busy));
        follows_.erase(here);
    }
    pump();
}

void Responder::enqueue(Reply reply) {
    if (closed_) return;
    if (queue_.size() >= max_queue) return refuse(reply, Answer::busy);
    queue_.push_back(std::move(reply));
    pump();
}

// Long answers wait their turn like what is read from files; short ones are bounded by the link.
void Responder::say(std::vector<std::uint8_t> const &message) {
    if (message.size() < 512) return link_.send_zest(message);
    auto block = framed(message);
    host_.turns.charge(link_.number(), block->size);
    send(std::move(block));
}

void Responder::send_update(std::vector<std::uint8_t> const &message) {
    auto block = framed(message);
    auto const size = block->size;
    host_.turns.charge(link_.number(), size);
    unsent_updates_bytes_ += size;
    send(std::move(block), [size](Responder &self) { self.unsent_updates_bytes_ -= size; });
}

std::unique_ptr<SendBlock> Responder::framed(std::vector<std::uint8_t> const &message) const {
    auto block = std::make_unique<SendBlock>(Link::frame_bytes + message.size() + link_.tail_bytes());
    link_.put_frame(block->at(0), link_.zest_id, message.size());
    std::copy(message.begin(), message.end(), block->at(Link::frame_bytes));
    return block;
}

void Responder::refuse(Reply const &reply, Answer answer) {
    switch (reply.what) {
        case What::have:
            return link_.send_zest(wire::have(reply.id, answer, {}, 0, {}));
        case What::manifest: {
            std::vector<std::uint8_t> message(wire::manifest_header_bytes);
            wire::put_manifest_header(message.data(), reply.id, answer, 0, 0, 0);
            return link_.send_zest(message);
        }
        case What::range:
        case What::draft:
            return link_.send_zest(wire::range_end(reply.id, answer));
        case What::chunk:
        case What::xorb:
            if (answer == Answer::busy)
                return link_.send_xet(wire::chunk_error(reply.id, error_busy, "too many requests"));
            return link_.send_xet(wire::chunk_not_found(reply.id, reply.hash));
    }
}

void Responder::give_up(Reply const &reply, Answer answer) {
    if (reply.cancelled) return;
    // In the middle of a xorb response there is no way to say so.
    if (reply.what == What::xorb && reply.next != reply.chunks.first)
        return link_.disconnect("what it was reading is not there any more");
    refuse(reply, answer);
}

void Responder::pump() { advance(false); }

std::size_t Responder::advance(bool has_turn) {
    while (!closed_ && !link_.gone() && !reading_ && !queue_.empty() && unsent_bytes_ < limit_.bytes()) {
        auto &reply = queue_.front();
        if (!host_.uploads && !reply.cancelled) {
            auto const refused = std::move(reply);
            queue_.pop_front();
            if (refused.draft) follows_.erase(refused.id);
            give_up(refused, refused.draft ? Answer::busy : Answer::not_found);
            continue;
        }
        if (reply.cancelled || answer_now(reply)) {
            auto const done = std::move(reply);
            queue_.pop_front();
            passed_on(done);
            continue;
        }
        if (reading_) break;
        if (reply.what == What::chunk && !reply.looked) {
            find_chunk(reply.hash);
        } else if (!find_rest(reply)) {
            queue_.pop_front();
        } else if (has_turn) {
            auto batch = next_batch(reply);
            auto const bytes = batch.bytes;
            read(std::move(batch));
            return bytes;
        } else {
            ask_for_turn();
            break;
        }
    }
    return 0;
}

void Responder::ask_for_turn() {
    if (host_name_.empty()) host_name_ = link_.host();
    host_.turns.ask(link_.number(), host_name_, host_.gives(link_), [weak = weak_from_this()]() -> std::size_t {
        auto const self = weak.lock();
        return self ? self->advance(true) : 0;
    });
}

template <typename Job, typename Then>
void Responder::aside(Job job, Then then) {
    reading_ = true;
    host_.readers.submit([weak = weak_from_this(), job = std::move(job), then = std::move(then), &host = host_] {
        // std::function wants something that can be copied.
        auto const result = std::make_shared<decltype(job())>();
        try {
            *result = job();
        } catch (std::bad_alloc const &) {
        }
        host.post([weak, then, result] {
            auto const self = weak.lock();
            if (!self) return;
            self->reading_ = false;
            if (self->closed_ || self->queue_.empty()) return;
            then(*self, self->queue_.front(), std::move(*result));
            self->pump();
        });
    });
}

// False: something is being read, or is to be.
bool Responder::answer_now(Reply &reply) {
    switch (reply.what) {
        case What::have:
            return answer_have(reply);
        case What::manifest:
            return answer_manifest(reply);
        default:
            return reply.next == reply.chunks.end;
    }
}

// To somebody who knows the object's hash, and not only its swarm's name, which trackers and the DHT tell everybody.
bool Responder::answer_have(Reply &reply) {
    auto const object = host_.store.find_swarm(reply.swarm);
    if (!object || object->kind != reply.kind ||
        !same(reply.proof, asking_proof(object->hash, object->kind, link_.there(), link_.here)))
        return refuse(reply, Answer::not_found), true;
    auto holding = host_.store.holding(object->kind, object->hash);
    if (!holding) return refuse(reply, Answer::not_found), true;
    if (holding->unproved && !reply.looked) return prove(object->hash), false;
    say(wire::have(reply.id, Answer::ok, holding_proof(object->hash, object->kind, link_.there(), link_.here),
                   holding->chunks, holding->ranges));
    // What follows from that comes behind the proof.
    link_.add_common(reply.swarm);
    if (reply.updates) host_.updates.watch(link_.number(), reply.id, *object, std::move(*holding), weak_from_this());
    return true;
}

void Responder::prove(Hash const &xorb) {
    aside([xorb, &store = host_.store] { return store.prove(xorb), true; },
          [](Responder &, Reply &reply, bool) { reply.looked = true; });
}

bool Responder::answer_manifest(Reply const &reply) {
    auto const holding = host_.store.holding(reply.kind, reply.hash);
    if (holding && holding->unproved && !reply.looked) return prove(reply.hash), false;
    if (!holding || reply.chunks.first >= holding->chunks) return refuse(reply, Answer::not_found), true;
    ChunkSpan const span{reply.chunks.first, std::min(reply.chunks.end, holding->chunks)};
    auto located = host_.store.locate_entries(reply.kind, reply.hash, span);
    if (!located) return refuse(reply, Answer::not_found), true;
    read_manifest(std::move(*located), holding->chunks, span);
    return false;
}

void Responder::read_manifest(Located located, std::uint32_t chunks, ChunkSpan span) {
    constexpr auto header = Link::frame_bytes + wire::manifest_header_bytes;
    auto const payload = wire::manifest_header_bytes + wire::manifest_entry_bytes * span.count();
    auto fill = [located = std::move(located), span,
                 size = Link::frame_bytes + payload + link_.tail_bytes()]() -> std::unique_ptr<SendBlock> {
        auto block = std::make_unique<SendBlock>(size);
        auto *out = block->at(header);
        std::vector<Hash> hashes(span.count());
        for (auto const &[file, object, file_first] : located.extents) {
            auto const count = object.count();
            if (!file->list->read_hashes({file_first, file_first + count}, hashes.front().data())) return nullptr;
            for (std::uint32_t i = 0; i < count; ++i) {
                out = std::copy(hashes[i].begin(), hashes[i].end(), out);
                out = wire::put_u32(out, file->list->length(file_first + i));
            }
        }
        return block;
    };
    aside(std::move(fill),
          [chunks, span, payload](Responder &self, Reply const &reply, std::unique_ptr<SendBlock> block) {
              if (block) {
                  self.link_.put_frame(block->at(0), self.link_.zest_id, payload);
                  wire::put_manifest_header(block->at(Link::frame_bytes), reply.id, Answer::ok, chunks, span.first,
                                            span.count());
                  self.host_.turns.charge(self.link_.number(), block->size);
                  self.send(std::move(block));
              } else {
                  self.refuse(reply, Answer::not_found);
              }
              self.queue_.pop_front();
          });
}

bool Responder::find_rest(Reply &reply) {
    if (reply.draft) return true;
    auto const &extents = reply.located.extents;
    auto const here =
        std::find_if(extents.begin(), extents.end(), [&](Extent const &e) { return reply.next < e.object.end; });
    if (here != extents.end() && here->file->offered) return true;
    if (reply.what == What::chunk) {
        refuse(reply, Answer::not_found);
        return false;
    }
    auto located = reply.chunks.count() > wire::max_range_chunks
                       ? std::nullopt
                       : host_.store.locate(reply.kind, reply.hash, {reply.next, reply.chunks.end});
    if (!located) {
        give_up(reply, Answer::not_found);
        return false;
    }
    reply.located = std::move(*located);
    return true;
}

void Responder::find_chunk(Hash const &chunk) {
    aside([chunk, likely = last_chunk_of_, &store = host_.store] { return store.locate_chunk(chunk, likely); },
          [](Responder &self, Reply &reply, std::optional<Located> located) {
              reply.looked = true;
              if (!located) return;
              self.last_chunk_of_ = located->extents.front().file;
              reply.located = std::move(*located);
          });
}

Responder::Batch Responder::next_batch(Reply const &reply) const {
    Batch batch{nullptr, reply.draft, {reply.next, reply.next}, 0, 0, link_.tail_bytes(), 0, {}};
    auto end = reply.chunks.end;
    if (!batch.draft) {
        auto const extent = std::find_if(reply.located.extents.begin(), reply.located.extents.end(),
                                         [&](Extent const &e) { return reply.next < e.object.end; });
        auto const first = extent->file_first + (reply.next - extent->object.first);
        batch.file = extent->file;
        batch.chunks = {first, first};
        end = first + (extent->object.end - reply.next);
    }
    end = std::min(end, batch.chunks.first + max_read_chunks);
    batch.lengths.resize(end - batch.chunks.first);
    if (batch.draft)
        batch.draft->copy({batch.chunks.first, end}, nullptr, batch.lengths.data());
    else
        for (std::size_t i = 0; i < batch.lengths.size(); ++i)
            batch.lengths[i] = batch.file->list->length(batch.chunks.first + static_cast<std::uint32_t>(i));
    batch.header = reply.what == What::xorb    ? wire::stored_chunk_header_bytes
                   : reply.what == What::chunk ? Link::frame_bytes + wire::chunk_response_header_bytes
                                               : Link::frame_bytes + wire::range_data_header_bytes;
    if (reply.what == What::xorb && reply.next == reply.chunks.first)
        batch.lead = Link::frame_bytes + wire::xorb_response_header_bytes;
    batch.bytes = batch.lead;
    auto const most = std::min(host_.turns.batch_bytes(), limit_.bytes());
    while (batch.chunks.end < end) {
        auto const size = batch.header + batch.lengths[batch.chunks.count()] + batch.tail;
        if (batch.chunks.count() != 0 && batch.bytes + size > most) break;
        batch.bytes += size;
        ++batch.chunks.end;
    }
    batch.lengths.resize(batch.chunks.count());
    return batch;
}

void Responder::read(Batch batch) {
    reading_ = true;
    host_.readers.submit([weak = weak_from_this(), batch = std::move(batch), &host = host_] {
        auto got = Got::lacking;
        // std::function wants something that can be copied.
        auto const block = std::make_shared<std::unique_ptr<SendBlock>>();
        try {
            *block = std::make_unique<SendBlock>(batch.bytes);
            Spacing const spacing{batch.lead, batch.header, batch.tail};
            got = batch.draft ? read_draft(*batch.draft, batch.chunks.first, batch.lengths, spacing, (*block)->at(0))
                              : read_chunks(host.readers.files, *batch.file, batch.chunks, spacing, (*block)->at(0));
        } catch (std::bad_alloc const &) {
        }
        host.post([weak, batch, got, block, &host] {
            if (auto const self = weak.lock()) self->has_read(batch, got, std::move(*block));
            host.turns.finished();
        });
    });
}

void Responder::has_read(Batch const &batch, Got got, std::unique_ptr<SendBlock> block) {
    reading_ = false;
    if (got == Got::gone && batch.file) host_.lost(batch.file);
    if (closed_ || queue_.empty()) return;
    auto &reply = queue_.front();
    if (got == Got::lacking || (got == Got::gone && batch.draft)) {
        follows_.erase(reply.id);
        give_up(reply, Answer::busy);
        queue_.pop_front();
    } else if (got == Got::bytes && (batch.draft || batch.file->offered) && !reply.cancelled) {
        put_headers(reply, batch, *block);
        bool const begins = reply.next == reply.chunks.first;
        reply.next += batch.chunks.count();
        bytes_up_ += batch.payload();
        if (batch.file && batch.file->hash) served_[*batch.file->hash] += batch.payload();
        if (reply.what == What::xorb && begins) link_.begin_message();
        send(std::move(block));
        if (reply.what == What::xorb && reply.next == reply.chunks.end) link_.end_message();
    } else if (reply.what == What::chunk) {
        reply.looked = false;
        reply.located = {};
    }
    // If not sent, the same bytes may lie in another file.
    pump();
}

void Responder::put_headers(Reply const &reply, Batch const &batch, SendBlock &block) const {
    std::size_t at = 0;
    if (batch.lead) {
        std::size_t size = 0;
        for (auto const &extent : reply.located.extents)
            size += extent.file->list->bytes({extent.file_first, extent.file_first + extent.object.count()});
        size += wire::stored_chunk_header_bytes * reply.chunks.count();
        link_.put_frame(block.at(0), link_.xet_id, wire::xorb_response_header_bytes + size);
        wire::put_xorb_response_header(block.at(Link::frame_bytes), reply.id, reply.chunks.first,
                                       static_cast<std::uint32_t>(size));
        at = batch.lead;
    }
    for (std::uint32_t i = 0; i < batch.chunks.count(); ++i) {
        auto const length = batch.lengths[i];
        auto *const out = block.at(at);
        switch (reply.what) {
            case What::range:
            case What::draft:
                link_.put_frame(out, link_.zest_id, wire::range_data_header_bytes + length);
                wire::put_range_data_header(out + Link::frame_bytes, reply.id,
                                            reply.next + i + (batch.draft ? batch.draft->chunks.first : 0));
                break;
            case What::chunk:
                link_.put_frame(out, link_.xet_id, wire::chunk_response_header_bytes + length);
                wire::put_chunk_response_header(out + Link::frame_bytes, reply.id, length);
                break;
            default:
                wire::put_stored_chunk_header(out, length);
        }
        at += batch.header + length + batch.tail;
    }
}

void Responder::send(std::unique_ptr<SendBlock> block) {
    auto const size = block->size;
    if (unsent_bytes_ == 0) limit_.begin(steady_ms());
    unsent_bytes_ += size;
    send(std::move(block), [size](Responder &self) {
        self.unsent_bytes_ -= size;
        self.limit_.left(size, steady_ms());
    });
}

template <typename Then>
void Responder::send(std::unique_ptr<SendBlock> block, Then then) {
    block->sent = [weak = weak_from_this(), then, &host = host_] {
        host.post([weak, then] {
            if (auto const self = weak.lock()) {
                then(*self);
                self->pump();
            }
        });
    };
    link_.send_block(std::move(block));
}

// While a message is sent in parts nothing else may be.
bool Responder::inside_xorb() const {
    return !queue_.empty() && queue_.front().what == What::xorb && queue_.front().next != queue_.front().chunks.first;
}

bool Responder::takes_updates() const {
    return !closed_ && !link_.gone() && !inside_xorb() && unsent_updates_bytes_ < max_unsent_updates_bytes;
}

}  // namespace zest
