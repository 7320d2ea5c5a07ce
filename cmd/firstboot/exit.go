package main

import (
	"context"
	"errors"
)

// Exit codes, as `firstboot help exit-codes` prints them.
const (
	exitOK          = 0
	exitFailure     = 1   // a phase failed; the next run continues there
	exitUsage       = 2   // the command line is wrong
	exitPlan        = 3   // the boot plan is missing, wrong or for another version
	exitInterrupted = 130 // SIGINT or SIGTERM; the next run continues
)

const exitCodesHelp = `Exit codes of firstboot:

  0    done
  1    something failed; the message says what. Running it again continues at
       the phase that failed
  2    the command line is wrong
  3    the boot plan is missing or wrong, or asks for what this version cannot do;
       running it again does not help
  130  interrupted; running it again continues where it was
`

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// planError is a boot plan that cannot be carried out.
type planError struct{ error }

func (e planError) Unwrap() error { return e.error }

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.As(err, new(planError)):
		return exitPlan
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailure
}
