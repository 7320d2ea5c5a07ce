package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitFailure},
		{usageError{errors.New("x")}, exitUsage},
		{fmt.Errorf("a: %w", mistakesError{2}), exitMistakes},
		{fmt.Errorf("a: %w", context.Canceled), exitInterrupted},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
	for _, args := range [][]string{{"build"}, {"check", "a", "b"}, {"--bogus"}} {
		err := Run(context.Background(), args, Streams{Out: io.Discard, Err: io.Discard})
		if exitCode(err) != exitUsage {
			t.Errorf("%v: %v", args, err)
		}
	}
}
