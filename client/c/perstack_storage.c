#define _POSIX_C_SOURCE 200809L
#define _XOPEN_SOURCE 700 /* realpath */
#include "perstack_storage.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <zmq.h>

#include "json.h"

#define PATIENCE_MS 1000
#define PATIENCE_MAX_MS 16000
#define BACKOFF_MS 10
#define BACKOFF_MAX_MS 1000
/* Larger values go in parts: below limits.frameBytes of any daemon that is not set to less than 5 MiB. */
#define PART_BYTES 4194304
#define HEADER_ROOM 512
#define SOCKET_PATH_MAX 107
/* A daemon that is being started again has so long to make its socket. */
#define RESTART_MS 1000
/* A wait is made of slices of so long; a slice counts as twice that at most, however long the process stood still. */
#define SLICE_MS 100
/* Bytes of a listing, at most. A daemon that never comes to an end must not fill the memory. */
#define LISTING_BYTES_MAX (1LL << 30)
/* No answer of a daemon comes in larger frames. */
#define ANSWER_FRAME_BYTES_MAX (1LL << 28)

struct ps_client {
    void *context;
    void *socket; /* NULL: to be connected */
    char *endpoint;
    char *base; /* NULL where the endpoint was named */
    int met;    /* the daemon has answered: a socket that is missing later means a restart */
    int timeout_ms;
    long long shown_ms; /* by the clock of `now_ms`, when it was looked at last */
    long long looked_at_ms;
    int stood_still; /* between the last two looks */
    char session[33];
    long long next_id;
    long long seq;     /* number of the last store */
    long long settled; /* each store up to this number has its answer, or was given up */
    char *job;         /* quoted, of `ps_expect`; NULL where stores expect nothing */
    long long held;    /* the position that they expect nobody to have stored after */
    int knows;         /* the daemon knows what stores ask for: it said so in `hello` */
    zmq_msg_t answer;
    json_slice header; /* of the answer */
    json_slice body;
};

/* A request until it has its answer; one that is not a store collects the body. */
typedef struct {
    const char *op;
    const char *body;
    size_t length;
    int is_store;
    const char *items; /* of an atomic batch: fields of the header, after a comma; else NULL */
    char *collected;
    size_t collected_length;
} ps_call;

typedef enum { ANSWERED, SILENT, FAULT } outcome;

/* The time in which the daemon could be heard: a process that was stopped hears nothing, so that time hardly counts.
 * Whoever waits looks at it at least once in SLICE_MS. */
static long long now_ms(ps_client *client)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long ms = (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, passed = ms - client->looked_at_ms;
    client->shown_ms += passed < 2 * SLICE_MS ? passed : 2 * SLICE_MS;
    client->looked_at_ms = ms;
    client->stood_still = passed > 2 * SLICE_MS;
    return client->shown_ms;
}

static void pause_ms(ps_client *client, long long ms)
{
    long long until = now_ms(client) + ms;
    for (long long left = ms; left > 0; left = until - now_ms(client)) {
        struct timespec slice = {0, (long)(left < SLICE_MS ? left : SLICE_MS) * 1000000};
        nanosleep(&slice, NULL);
    }
}

static ps_result say(ps_error *error, ps_result result, const char *code, const char *message)
{
    snprintf(error->code, sizeof error->code, "%s", code);
    snprintf(error->message, sizeof error->message, "%s", message);
    error->field[0] = '\0';
    error->retryable = 0;
    error->item = -1;
    error->position = -1;
    return result;
}

/* --- connection --------------------------------------------------------------------------------- */

static int reconnect(ps_client *client)
{
    int no_linger = 0, only_connected = 1;
    int64_t frame_bytes_max = ANSWER_FRAME_BYTES_MAX;
    if (client->socket != NULL)
        zmq_close(client->socket);
    client->socket = zmq_socket(client->context, ZMQ_DEALER);
    if (client->socket == NULL)
        return -1;
    zmq_setsockopt(client->socket, ZMQ_LINGER, &no_linger, sizeof no_linger);
    zmq_setsockopt(client->socket, ZMQ_IMMEDIATE, &only_connected, sizeof only_connected);
    zmq_setsockopt(client->socket, ZMQ_MAXMSGSIZE, &frame_bytes_max, sizeof frame_bytes_max);
    return zmq_connect(client->socket, client->endpoint);
}

static int is_there(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* Whether a daemon may be listening. None is where the endpoint is that of a base, none was met, and there is no
 * socket. Where a daemon has served the base before, it may be starting again, and has a second. */
static int may_be_served(ps_client *client, long long until)
{
    char stored[SOCKET_PATH_MAX + 1];
    const char *socket = client->endpoint + strlen("ipc://");
    if (client->base == NULL || client->met)
        return 1;
    snprintf(stored, sizeof stored, "%s/.stored", client->base);
    long long restarted = now_ms(client) + RESTART_MS;
    if (restarted < until)
        until = restarted;
    while (!is_there(socket)) {
        if (!is_there(stored) || now_ms(client) >= until)
            return 0;
        pause_ms(client, BACKOFF_MS);
    }
    return 1;
}

/* Waits for the socket until `until`; 0 if it was in vain. After a standstill it waits for another slice in any case:
 * what has arrived must get through libzmq's thread, which stood still as well. */
static int wait_for(ps_client *client, short events, long long until)
{
    for (;;) {
        long long left = until - now_ms(client);
        if (client->stood_still)
            left = SLICE_MS;
        zmq_pollitem_t item = {client->socket, 0, events, 0};
        int ready = zmq_poll(&item, 1, left < 0 ? 0 : left < SLICE_MS ? (long)left : SLICE_MS);
        if (ready > 0)
            return 1;
        if ((ready == 0 && left <= 0) || (ready < 0 && errno != EINTR))
            return 0;
    }
}

static outcome send_frame(ps_client *client, const char *header, const char *body, size_t length, long long until)
{
    zmq_msg_t frame;
    size_t head = strlen(header);
    if (!wait_for(client, ZMQ_POLLOUT, until))
        return SILENT;
    if (zmq_msg_init_size(&frame, head + 1 + length) != 0)
        return FAULT;
    memcpy(zmq_msg_data(&frame), header, head);
    ((char *)zmq_msg_data(&frame))[head] = '\n';
    memcpy((char *)zmq_msg_data(&frame) + head + 1, body, length);
    while (zmq_msg_send(&frame, client->socket, ZMQ_DONTWAIT) < 0) {
        if (errno != EINTR) {
            outcome result = errno == EAGAIN ? SILENT : FAULT;
            zmq_msg_close(&frame);
            return result;
        }
    }
    return ANSWERED;
}

/* Takes frames until the answer to `id` is there. An answer to something else is a late one. */
static outcome receive(ps_client *client, long long id, long long until)
{
    while (wait_for(client, ZMQ_POLLIN, until)) {
        if (zmq_msg_recv(&client->answer, client->socket, ZMQ_DONTWAIT) < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            return FAULT;
        }
        const char *data = zmq_msg_data(&client->answer);
        size_t size = zmq_msg_size(&client->answer);
        const char *line_feed = memchr(data, '\n', size);
        size_t head = line_feed == NULL ? size : (size_t)(line_feed - data);
        client->header = (json_slice){data, head};
        client->body = line_feed == NULL ? (json_slice){data, 0} : (json_slice){line_feed + 1, size - head - 1};
        json_slice ok = json_member(client->header, "ok"), answered = json_member(client->header, "id");
        if (!json_is(ok, "true") && !json_is(ok, "false"))
            return FAULT;
        if (json_integer(answered, -1) == id || json_is(answered, "null"))
            return ANSWERED;
    }
    return SILENT;
}

/* Sends a frame and waits for its answer. `fields` are those of the header after `id`, each after a comma. */
static outcome ask(ps_client *client, const char *op, const char *fields, json_slice body, long long patience_ms)
{
    long long until = now_ms(client) + patience_ms, id = client->next_id++;
    size_t room = HEADER_ROOM + strlen(fields);
    char *header = malloc(room);
    if (header == NULL)
        return FAULT;
    snprintf(header, room, "{\"v\":1,\"op\":\"%s\",\"id\":%lld%s}", op, id, fields);
    outcome sent = send_frame(client, header, body.start, body.length, until);
    free(header);
    return sent == ANSWERED ? receive(client, id, until) : sent;
}

/* --- a request ---------------------------------------------------------------------------------- */

static int is_ok(const ps_client *client)
{
    return json_is(json_member(client->header, "ok"), "true");
}

/* Whether the daemon knows atomic batches and `expect`: an older one would ignore both. */
static outcome ask_features(ps_client *client, long long patience_ms)
{
    outcome result = ask(client, "hello", "", (json_slice){"", 0}, patience_ms);
    if (result == ANSWERED && is_ok(client)) {
        json_slice features = json_member(client->body, "features");
        char text[1024] = "";
        if (features.start != NULL && features.length < sizeof text) {
            memcpy(text, features.start, features.length);
            text[features.length] = '\0';
        }
        client->knows = strstr(text, "\"atomic\"") != NULL && strstr(text, "\"expect\"") != NULL;
    }
    return result;
}

static outcome send_store(ps_client *client, const ps_call *call, char *fields, size_t room, long long patience_ms)
{
    /* An atomic batch can't come in parts. */
    size_t parts = call->items != NULL ? 1 : (call->length + PART_BYTES - 1) / PART_BYTES;
    int used = snprintf(fields, room, ",\"session\":\"%s\",\"seq\":%lld,\"settled\":%lld%s", client->session,
                        client->seq, client->settled, call->items != NULL ? call->items : "");
    if (client->job != NULL)
        used += snprintf(fields + used, room - (size_t)used, ",\"expect\":{\"jobId\":%s,\"position\":%lld}",
                         client->job, client->held);
    json_slice whole = {call->body, call->length};
    if (parts <= 1)
        return ask(client, call->op, fields, whole, patience_ms);
    for (size_t part = 0;; part++) {
        size_t start = part * PART_BYTES, left = call->length - start;
        json_slice piece = {call->body + start, left < PART_BYTES ? left : PART_BYTES};
        snprintf(fields + used, room - (size_t)used, ",\"part\":%zu,\"parts\":%zu,\"bytes\":%zu", part, parts,
                 call->length);
        outcome result = ask(client, call->op, fields, piece, patience_ms);
        if (result != ANSWERED || !is_ok(client) || part + 1 == parts)
            return result;
    }
}

/* Sends a store, in parts if it has to be; any error to a part is the answer to the store. */
static outcome try_store(ps_client *client, const ps_call *call, long long patience_ms)
{
    size_t room = HEADER_ROOM + (call->items != NULL ? strlen(call->items) : 0) +
                  (client->job != NULL ? strlen(client->job) + HEADER_ROOM : 0);
    char *fields = malloc(room);
    if (fields == NULL)
        return FAULT;
    outcome result = send_store(client, call, fields, room, patience_ms);
    free(fields);
    return result;
}

static int collect(ps_call *call, json_slice body)
{
    if (body.length > (size_t)LISTING_BYTES_MAX - call->collected_length)
        return -1;
    char *grown = realloc(call->collected, call->collected_length + body.length + 1);
    if (grown == NULL)
        return -1;
    memcpy(grown + call->collected_length, body.start, body.length);
    call->collected = grown;
    call->collected_length += body.length;
    grown[call->collected_length] = '\0';
    return 0;
}

/* Sends a read, and pulls what its answer leaves over. */
static outcome try_read(ps_client *client, ps_call *call, long long patience_ms, long long left_ms)
{
    long long until = now_ms(client) + left_ms;
    char fields[HEADER_ROOM / 2], more[HEADER_ROOM / 2];
    snprintf(fields, sizeof fields, ",\"timeoutMs\":%lld", left_ms);
    call->collected_length = 0;
    json_slice arguments = {call->body, call->length};
    outcome result = ask(client, call->op, fields, arguments, patience_ms);
    while (result == ANSWERED && is_ok(client)) {
        if (collect(call, client->body) != 0)
            return FAULT;
        json_slice rest = json_member(client->header, "more");
        if (rest.start == NULL)
            break;
        if (rest.length >= sizeof more)
            return FAULT;
        if (now_ms(client) >= until)
            return SILENT; /* parts come for ever, or too slowly */
        memcpy(more, rest.start, rest.length); /* it stands in the answer that the next one replaces */
        result = ask(client, "readPart", fields, (json_slice){more, rest.length}, patience_ms);
    }
    return result;
}

static long long take_error(const ps_client *client, ps_error *error)
{
    json_slice answered = json_member(client->header, "error");
    json_string(json_member(answered, "code"), error->code, sizeof error->code);
    json_string(json_member(answered, "field"), error->field, sizeof error->field);
    json_string(json_member(answered, "message"), error->message, sizeof error->message);
    error->retryable = json_is(json_member(answered, "retryable"), "true");
    error->item = (int)json_integer(json_member(answered, "item"), -1);
    error->position = json_integer(json_member(answered, "position"), -1);
    return json_integer(json_member(answered, "retryAfterMs"), 0);
}

/* Tries until there is a final answer, or the time is over: section 3 of wire.md, with one request in flight. */
static ps_result carry_out(ps_client *client, ps_call *call, ps_error *error)
{
    long long until = now_ms(client) + client->timeout_ms, patience_ms = PATIENCE_MS, backoff_ms = BACKOFF_MS;
    say(error, PS_NO_ANSWER, "NO_ANSWER", "nobody answered in time");
    for (;;) {
        long long wait_ms = 0, left_ms = until - now_ms(client);
        if (left_ms < 1)
            left_ms = 1;
        if (!may_be_served(client, until)) {
            say(error, PS_NO_ANSWER, "NO_DAEMON", "");
            snprintf(error->message, sizeof error->message,
                     "there is no socket; a daemon is started with: perstack-stored serve --base-path %s",
                     client->base);
            return PS_NO_ANSWER;
        }
        if (client->socket == NULL && reconnect(client) != 0)
            return say(error, PS_FAULT, "NO_SOCKET", zmq_strerror(errno));
        long long patience = patience_ms < left_ms ? patience_ms : left_ms;
        int asks = call->is_store && !client->knows && (call->items != NULL || client->job != NULL);
        if (asks) {
            outcome known = ask_features(client, patience);
            if (known == ANSWERED && is_ok(client) && !client->knows)
                return say(error, PS_REFUSED, "UNKNOWN_OPERATION", "this daemon does not know it: update the daemon");
            if (known == ANSWERED && is_ok(client))
                continue;
        }
        outcome result = asks ? SILENT
            : call->is_store ? try_store(client, call, patience) : try_read(client, call, patience, left_ms);
        if (result == FAULT)
            return say(error, PS_FAULT, "FAULT", "no memory, no answer of the protocol, or one of more than 1 GiB");
        if (result == ANSWERED) {
            client->met = 1;
            if (is_ok(client))
                return PS_OK;
            wait_ms = take_error(client, error);
            if (!error->retryable)
                return PS_REFUSED;
            wait_ms = wait_ms > backoff_ms ? wait_ms : backoff_ms;
            backoff_ms = backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS;
        } else {
            zmq_close(client->socket);
            client->socket = NULL;
            patience_ms = patience_ms * 2 < PATIENCE_MAX_MS ? patience_ms * 2 : PATIENCE_MAX_MS;
        }
        if (now_ms(client) + wait_ms >= until)
            return error->retryable ? PS_REFUSED : PS_NO_ANSWER;
        pause_ms(client, wait_ms);
    }
}

/* Carries out a request. What is given up must not arrive later: the connection goes with it. */
static ps_result finish(ps_client *client, ps_call *call, ps_error *error)
{
    ps_result result = carry_out(client, call, error);
    if (result != PS_OK && client->socket != NULL) {
        zmq_close(client->socket);
        client->socket = NULL;
    }
    return result;
}

/* --- the calls ---------------------------------------------------------------------------------- */

/* Whether a text names several endpoints: another one begins after a comma. A path may have commas. */
static int is_list(const char *text)
{
    for (const char *at = strchr(text, ','); at != NULL; at = strchr(at + 1, ',')) {
        const char *word = at + 1 + strspn(at + 1, " \t\r\n");
        size_t scheme = strspn(word, "abcdefghijklmnopqrstuvwxyz");
        if (scheme > 0 && strncmp(word + scheme, "://", 3) == 0)
            return 1;
    }
    return 0;
}

/* The endpoint that section 1 of wire.md names, and the base if it is that of one; NULL with errno if there is none. */
static char *resolve(const char *endpoint, char **of_base)
{
    if (endpoint == NULL || *endpoint == '\0')
        endpoint = getenv("PERSTACK_STORED_ENDPOINT");
    if (endpoint != NULL && is_list(endpoint)) {
        errno = E2BIG; /* this client takes one daemon */
        return NULL;
    }
    if (endpoint != NULL && *endpoint != '\0')
        return strdup(endpoint);
    const char *base = getenv("PERSTACK_STORED_BASE");
    if (base == NULL || *base == '\0')
        base = getenv("PERSTACK_STORAGE_PATH");
    char *path = realpath(base != NULL && *base != '\0' ? base : "./perstack", NULL);
    if (path == NULL)
        return NULL;
    size_t room = strlen(path) + sizeof "ipc:///.stored/stored.sock";
    char *found = malloc(room);
    if (found != NULL && snprintf(found, room, "ipc://%s/.stored/stored.sock", path) > SOCKET_PATH_MAX + 6) {
        free(found);
        found = NULL;
        errno = ENAMETOOLONG; /* such a base needs an endpoint */
    }
    if (found != NULL)
        *of_base = path;
    else
        free(path);
    return found;
}

static int make_session(char session[33])
{
    unsigned char bytes[16];
    FILE *source = fopen("/dev/urandom", "rb");
    if (source == NULL)
        return -1;
    size_t got = fread(bytes, 1, sizeof bytes, source);
    fclose(source);
    if (got != sizeof bytes)
        return -1;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(session + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

ps_client *ps_open(const char *endpoint, int timeout_ms)
{
    ps_client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return NULL;
    zmq_msg_init(&client->answer);
    client->timeout_ms = timeout_ms;
    client->next_id = 1;
    if ((client->context = zmq_ctx_new()) == NULL || (client->endpoint = resolve(endpoint, &client->base)) == NULL ||
        make_session(client->session) != 0 || reconnect(client) != 0) {
        int reason = errno;
        ps_close(client);
        errno = reason;
        return NULL;
    }
    return client;
}

void ps_close(ps_client *client)
{
    if (client == NULL)
        return;
    zmq_msg_close(&client->answer);
    if (client->socket != NULL)
        zmq_close(client->socket);
    if (client->context != NULL)
        zmq_ctx_term(client->context);
    free(client->endpoint);
    free(client->base);
    free(client->job);
    free(client);
}

/* Carries out a store, which takes the next `count` numbers. */
static ps_result store(ps_client *client, ps_call *call, size_t count, long long *position, ps_error *error)
{
    client->seq = client->settled + 1;
    ps_result result = finish(client, call, error);
    client->settled += (long long)count; /* answered, or given up */
    if (result == PS_OK) {
        *position = json_integer(json_member(client->header, "position"), -1);
        if (*position < 0)
            return say(error, PS_FAULT, "FAULT", "an answer without a position");
        if (*position + (long long)count - 1 > client->held)
            client->held = *position + (long long)count - 1;
    }
    return result;
}

ps_result ps_store_atomic(ps_client *client, const ps_value *values, size_t count, long long *position,
                          ps_error *error)
{
    if (count == 0)
        return say(error, PS_REFUSED, "BAD_REQUEST", "an atomic batch needs values");
    size_t length = 0, used = 0, room = 64 + count * 64, start = 0;
    for (size_t i = 0; i < count; i++)
        length += values[i].length;
    char *items = malloc(room), *body = malloc(length + 1);
    if (items == NULL || body == NULL) {
        free(items);
        free(body);
        return say(error, PS_FAULT, "FAULT", "no memory");
    }
    used += (size_t)snprintf(items, room, ",\"items\":");
    for (size_t i = 0; i < count; i++) {
        used += (size_t)snprintf(items + used, room - used, "%c[\"%.20s\",%zu]", i == 0 ? '[' : ',', values[i].op,
                                 values[i].length);
        memcpy(body + start, values[i].value, values[i].length);
        start += values[i].length;
    }
    snprintf(items + used, room - used, "],\"atomic\":true");
    ps_call call = {.op = "store", .body = body, .length = length, .is_store = 1, .items = items};
    ps_result result = store(client, &call, count, position, error);
    free(items);
    free(body);
    return result;
}

int ps_expect(ps_client *client, const char *job_id, long long position)
{
    char *quoted = NULL;
    if (job_id != NULL) {
        if (strlen(job_id) > 200 || (quoted = malloc(6 * strlen(job_id) + 3)) == NULL)
            return -1;
        json_quote(quoted, job_id);
    }
    free(client->job);
    client->job = quoted;
    client->held = position;
    return 0;
}

ps_result ps_store_event(ps_client *client, const char *event, size_t length, long long *position, ps_error *error)
{
    ps_call call = {.op = "storeEvent", .body = event, .length = length, .is_store = 1};
    return store(client, &call, 1, position, error);
}

/* A JSON object with the ids of a job and, unless it is NULL, of a run. The caller frees it; NULL: no memory. */
static char *named(const char *job_id, const char *run_id, size_t *length)
{
    char *text = malloc(6 * (strlen(job_id) + (run_id == NULL ? 0 : strlen(run_id))) + 64);
    if (text == NULL)
        return NULL;
    char *end = text;
    end += sprintf(end, "{\"jobId\":");
    end = json_quote(end, job_id);
    if (run_id != NULL) {
        end += sprintf(end, ",\"runId\":");
        end = json_quote(end, run_id);
    }
    end += sprintf(end, "}");
    *length = (size_t)(end - text);
    return text;
}

static ps_result delete(ps_client *client, const char *op, char *body, size_t length, long long *position, ps_error *error)
{
    if (body == NULL)
        return say(error, PS_FAULT, "FAULT", "no memory");
    ps_call call = {.op = op, .body = body, .length = length, .is_store = 1};
    ps_result result = store(client, &call, 1, position, error);
    free(body);
    return result;
}

ps_result ps_delete_job(ps_client *client, const char *job_id, long long *position, ps_error *error)
{
    size_t length = 0;
    char *body = named(job_id, NULL, &length);
    return delete(client, "deleteJob", body, length, position, error);
}

ps_result ps_delete_run(ps_client *client, const char *job_id, const char *run_id, long long *position, ps_error *error)
{
    size_t length = 0;
    char *body = named(job_id, run_id, &length);
    return delete(client, "deleteRun", body, length, position, error);
}

ps_result ps_redact_run_setting(ps_client *client, const char *job_id, const char *run_id, const char *setting,
                                size_t length, long long *position, ps_error *error)
{
    static const char begin[] = "{\"setting\":";
    size_t begun = sizeof begin - 1, rest_length = 0;
    char *rest = named(job_id, run_id, &rest_length); /* last, so that no key of the setting stands in its place */
    char *body = rest == NULL ? NULL : malloc(begun + length + rest_length);
    if (body != NULL) {
        memcpy(body, begin, begun);
        memcpy(body + begun, setting, length);
        memcpy(body + begun + length, rest, rest_length);
        body[begun + length] = ',';
    }
    free(rest);
    return delete(client, "redactRunSetting", body, begun + length + rest_length, position, error);
}

ps_result ps_get_events_by_run(ps_client *client, const char *job_id, const char *run_id, char **events,
                               size_t *length, ps_error *error)
{
    size_t arguments_length = 0;
    char *arguments = named(job_id, run_id, &arguments_length);
    if (arguments == NULL)
        return say(error, PS_FAULT, "FAULT", "no memory");
    ps_call call = {.op = "getEventsByRun", .body = arguments, .length = arguments_length};
    ps_result result = finish(client, &call, error);
    free(arguments);
    if (result != PS_OK) {
        free(call.collected);
        return result;
    }
    *events = call.collected;
    *length = call.collected_length;
    return PS_OK;
}
