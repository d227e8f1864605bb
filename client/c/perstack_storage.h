/* A small client of perstack-stored, written from proto/wire.md: one request in flight, on libzmq alone.
 *
 * A client belongs to one thread and one process: open another one in each, and after fork(). Values are JSON texts in
 * UTF-8. Every call ends within the timeout, rides out a restart of the daemon until then, and fills `error` if it is
 * not PS_OK. */
#ifndef PERSTACK_STORAGE_H
#define PERSTACK_STORAGE_H

#include <stddef.h>

typedef struct ps_client ps_client;

typedef enum {
    PS_OK,
    PS_REFUSED,   /* the daemon says no: `code` and `field` say why, section 5 of wire.md */
    PS_NO_ANSWER, /* nobody answered in time; whether a store took place is unknown. With the code NO_DAEMON it did not:
                   * there is no socket */
    PS_FAULT      /* no memory, no socket, or something else than the daemon answers there */
} ps_result;

typedef struct {
    char code[32];
    char field[64]; /* "" where there is none */
    char message[256];
    int retryable;
    int item;           /* of an atomic batch: the value that was refused, from 0; else -1 */
    long long position; /* of a CONFLICT: where another session stored last; else -1 */
} ps_error;

/* A value of an atomic batch. */
typedef struct {
    const char *op; /* "storeEvent", "storeCheckpoint", "storeJob" or "storeRunSetting" */
    const char *value;
    size_t length;
} ps_value;

/* A client that was given no endpoint, and has not met its daemon yet, does not wait where the base has no socket; where
 * a daemon has served it before, for a second.
 *
 * The timeout measures the silence of the daemon: time in which the process was stopped hardly counts. An answer may have
 * 1 GiB at most.
 *
 * Connects; that the daemon is there is not needed yet. Without an endpoint it is PERSTACK_STORED_ENDPOINT, else the
 * socket of the base. NULL if there is no memory, no socket, or no usable endpoint: see errno. It is E2BIG for a list of
 * endpoints, which other clients take: this one knows one daemon. */
ps_client *ps_open(const char *endpoint, int timeout_ms);

/* Drops what is under way. NULL is fine. */
void ps_close(ps_client *client);

/* Stores an event exactly once, after those stored before by this client. PS_OK means that it is on disk. */
ps_result ps_store_event(ps_client *client, const char *event, size_t length, long long *position, ps_error *error);

/* Deletes a job, or a run of it: all that was stored of it so far. PS_OK means that no read shows it any more. This client
 * can't store to it after that. The daemon must let it delete: else PS_REFUSED with FORBIDDEN. */
ps_result ps_delete_job(ps_client *client, const char *job_id, long long *position, ps_error *error);
ps_result ps_delete_run(ps_client *client, const char *job_id, const char *run_id, long long *position, ps_error *error);

/* Puts a setting, a JSON text of at most 256 KiB, in the place of all that were stored of its run, which no read shows any
 * more. For secrets that must go while the run stays. The daemon must let it delete: else PS_REFUSED with FORBIDDEN. */
ps_result ps_redact_run_setting(ps_client *client, const char *job_id, const char *run_id, const char *setting,
                                size_t length, long long *position, ps_error *error);

/* Stores values of any kinds, all or none; they stand at `position` and the positions after it. All of them must fit
 * into a frame of the daemon. Of a daemon that does not know it, PS_REFUSED with UNKNOWN_OPERATION. */
ps_result ps_store_atomic(ps_client *client, const ps_value *values, size_t count, long long *position,
                          ps_error *error);

/* From here on each store of this client expects that nobody else has stored for the job after `position`, which is
 * that of a read, and moves on with each store that is answered; else it is PS_REFUSED with CONFLICT. NULL ends it. -1
 * if there is no memory, or the id is longer than 200 bytes. */
int ps_expect(ps_client *client, const char *job_id, long long position);

/* Timestamp, step and type of each event of a run: a JSON array, with a closing NUL that `length` does not count. The
 * caller frees it. */
ps_result ps_get_events_by_run(ps_client *client, const char *job_id, const char *run_id, char **events,
                               size_t *length, ps_error *error);

#endif
