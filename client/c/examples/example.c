/* Stores events and lists them:
 *
 *     example ENDPOINT store              each line of standard input is an event; prints its position
 *     example ENDPOINT events JOB RUN     prints what getEventsByRun answers
 *
 * What goes wrong is a line "CODE FIELD MESSAGE" on standard error, and the exit status 1. */
#define _POSIX_C_SOURCE 200809L
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

int main(int count, char **words)
{
    const char *timeout = getenv("TIMEOUT_MS");
    int is_store = count == 3 && strcmp(words[2], "store") == 0;
    int is_delete = (count == 4 || count == 5) && strcmp(words[2], "delete") == 0;
    if (!is_store && !is_delete && !(count == 5 && strcmp(words[2], "events") == 0)) {
        fprintf(stderr, "usage: example ENDPOINT store\n"
                        "       example ENDPOINT events JOB RUN\n"
                        "       example ENDPOINT delete JOB [RUN]\n");
        return 2;
    }
    ps_client *client = ps_open(words[1], timeout != NULL ? atoi(timeout) : TIMEOUT_MS);
    if (client == NULL) {
        perror(words[1]);
        return 1;
    }
    int status = is_store    ? store_lines(client)
                 : is_delete ? delete(client, words[3], count == 5 ? words[4] : NULL)
                             : list_events(client, words[3], words[4]);
    ps_close(client);
    return status;
}
