package main

import (
	"context"
	"errors"
)

// Exit codes, as `imagegen help exit-codes` prints them.
const (
	exitOK          = 0
	exitFailure     = 1   // something failed: the message says what and where
	exitUsage       = 2   // the command line is wrong
	exitMistakes    = 3   // the cluster file or the payload manifest has mistakes; all of them were printed
	exitInterrupted = 130 // Ctrl-C or SIGTERM; nothing half-made is left under a final name
)

const exitCodesHelp = `Exit codes of imagegen:

  0    done
  1    something failed; the message says what, where, and what would be right
  2    the command line is wrong
  3    the cluster file or the payload manifest has mistakes; all of them were printed
  130  interrupted; no half-made file is left under a final name
`

// usageError is a wrong command line.
type usageError struct{ error }

// mistakesError stands for mistakes in the cluster file that were printed already.
type mistakesError struct{ count int }

func (mistakesError) Error() string { return "the cluster file has mistakes" }

// orInterrupted returns how a command ended. What an interrupt breaks off fails in
// many ways, a killed compiler's among them; all of them are the interrupt.
func orInterrupted(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	return err
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.As(err, new(mistakesError)):
		return exitMistakes
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailure
}
