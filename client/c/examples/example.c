/* Stores events and lists them:
 *
 *     example ENDPOINT store              each line of standard input is an event; prints its position
 *     example ENDPOINT atomic             the same, all or none; prints the first position
 *     example ENDPOINT own JOB POSITION   as store, while nobody else stores for the job after the position
 *     example ENDPOINT events JOB RUN     prints what getEventsByRun answers
 *     example ENDPOINT delete JOB [RUN]   deletes a job or run; prints the position
 *     example ENDPOINT redact JOB RUN     puts the run setting on standard input in the place of the stored one
 *
 * What goes wrong is a line "CODE FIELD MESSAGE" on standard error, and the exit status 1. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perstack_storage.h"

#define TIMEOUT_MS 30000

static int complain(const ps_error *error)
{
    fprintf(stderr, "%s %s %s\n", error->code, *error->field ? error->field : "-", error->message);
    return 1;
}

static int store_lines(ps_client *client)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    int status = 0;
    while ((length = getline(&line, &room, stdin)) > 0) {
        long long position;
        ps_error error;
        if (line[length - 1] == '\n')
            length--;
        if (ps_store_event(client, line, (size_t)length, &position, &error) == PS_OK)
            printf("%lld\n", position);
        else
            status = complain(&error);
        fflush(stdout);
    }
    free(line);
    return status;
}

/* Each line is an event of the batch. */
static int store_all(ps_client *client)
{
    ps_value values[64];
    size_t count = 0, room = 0;
    ssize_t length;
    char *line = NULL;
    long long position;
    ps_error error;
    while (count < sizeof values / sizeof *values && (length = getline(&line, &room, stdin)) > 0) {
        values[count++] = (ps_value){"storeEvent", line, (size_t)length};
        line = NULL; /* the value keeps it */
        room = 0;
    }
    free(line);
    ps_result result = ps_store_atomic(client, values, count, &position, &error);
    for (size_t i = 0; i < count; i++)
        free((void *)values[i].value);
    if (result != PS_OK) {
        fprintf(stderr, "item %d: ", error.item);
        return complain(&error);
    }
    printf("%lld\n", position);
    return 0;
}

static int list_events(ps_client *client, const char *job, const char *run)
{
    char *events;
    size_t length;
    ps_error error;
    if (ps_get_events_by_run(client, job, run, &events, &length, &error) != PS_OK)
        return complain(&error);
    fwrite(events, 1, length, stdout);
    putchar('\n');
    free(events);
    return 0;
}

static int delete(ps_client *client, const char *job, const char *run)
{
    long long position;
    ps_error error;
    ps_result result = run == NULL ? ps_delete_job(client, job, &position, &error)
                                   : ps_delete_run(client, job, run, &position, &error);
    if (result != PS_OK)
        return complain(&error);
    printf("%lld\n", position);
    return 0;
}

static int redact(ps_client *client, const char *job, const char *run)
{
    char *setting = NULL;
    size_t room = 0;
    ssize_t length = getdelim(&setting, &room, EOF, stdin);
    long long position;
    ps_error error;
    ps_result result = ps_redact_run_setting(client, job, run, length < 0 ? "" : setting,
                                             length < 0 ? 0 : (size_t)length, &position, &error);
    free(setting);
    if (result != PS_OK)
        return complain(&error);
    printf("%lld\n", position);
    return 0;
}

int main(int count, char **words)
{
    const char *timeout = getenv("TIMEOUT_MS");
    int is_store = count == 3 && strcmp(words[2], "store") == 0;
    int is_delete = (count == 4 || count == 5) && strcmp(words[2], "delete") == 0;
    int is_atomic = count == 3 && strcmp(words[2], "atomic") == 0;
    int is_own = count == 5 && strcmp(words[2], "own") == 0;
    int is_redact = count == 5 && strcmp(words[2], "redact") == 0;
    int is_events = count == 5 && strcmp(words[2], "events") == 0;
    if (!is_store && !is_delete && !is_atomic && !is_own && !is_redact && !is_events) {
        fprintf(stderr, "usage: example ENDPOINT store\n"
                        "       example ENDPOINT atomic\n"
                        "       example ENDPOINT own JOB POSITION\n"
                        "       example ENDPOINT events JOB RUN\n"
                        "       example ENDPOINT delete JOB [RUN]\n"
                        "       example ENDPOINT redact JOB RUN\n");
        return 2;
    }
    ps_client *client = ps_open(words[1], timeout != NULL ? atoi(timeout) : TIMEOUT_MS);
    if (client == NULL && errno == E2BIG) {
        fprintf(stderr, "a list of endpoints: this client takes one, of one daemon\n");
        return 1;
    }
    if (client == NULL) {
        perror(words[1]);
        return 1;
    }
    if (is_own && ps_expect(client, words[3], atoll(words[4])) != 0) {
        perror("expect");
        ps_close(client);
        return 1;
    }
    int status = is_store || is_own ? store_lines(client)
                 : is_atomic ? store_all(client)
                 : is_delete ? delete(client, words[3], count == 5 ? words[4] : NULL)
                 : is_redact ? redact(client, words[3], words[4])
                             : list_events(client, words[3], words[4]);
    ps_close(client);
    return status;
}
