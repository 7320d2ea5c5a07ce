package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/diag"
	"github.com/kiln-os/kiln/internal/progress"
)

// reporter returns what shows the command's steps on standard error. The caller
// calls Finish.
func (a *app) reporter() *progress.Reporter {
	return progress.New(progress.Options{Out: a.Err, JSON: a.json, Quiet: a.quiet, Getenv: os.Getenv})
}

// jsonFlag gives a command --json.
func (a *app) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&a.json, "json", false, "print the result, and events on standard error, as JSON")
}

// shownError is one that standard error has already.
type shownError struct{ error }

func (e shownError) Unwrap() error { return e.error }

// showError prints an error as an event if the command was told to speak JSON, so
// that a program never meets a line that it cannot parse.
func (a *app) showError(err error) error {
	if err == nil || !a.json || reported(err) {
		return err
	}
	progress.WriteEvent(a.Err, progress.Event{Event: progress.EventError, Message: err.Error()})
	return shownError{err}
}

// interrupted tells what an interrupt left behind, and returns err as shown.
func (a *app) interrupted(err error) error {
	const text = "interrupted: no half-made file has a final name, and files of earlier runs are whole; the same command makes the rest"
	if a.json {
		progress.WriteEvent(a.Err, progress.Event{Event: progress.EventError, Message: text})
	} else {
		fmt.Fprintf(a.Err, "imagegen: %s\n", text)
	}
	return shownError{err}
}

// showMistakes prints the mistakes of a cluster file.
func (a *app) showMistakes(file string, mistakes diag.List) error {
	if a.json {
		mistakes.Sort()
		for i := range mistakes {
			progress.WriteEvent(a.Err, progress.Event{Event: progress.EventMistake, Mistake: &mistakes[i]})
		}
	} else {
		if err := mistakes.Print(a.Err); err != nil {
			return err
		}
		fmt.Fprintf(a.Err, "%s: %d mistake(s)\n", file, len(mistakes))
	}
	return mistakesError{len(mistakes)}
}

// reported says that the user has seen the reason already.
func reported(err error) bool {
	return errors.As(err, new(mistakesError)) || errors.As(err, new(shownError)) || errors.Is(err, context.Canceled)
}
