// Imagegen turns a cluster file into bootable disk images.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := Run(ctx, os.Args[1:], Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	if err != nil && !reported(err) {
		fmt.Fprintf(os.Stderr, "imagegen: %v\n", err)
	}
	os.Exit(exitCode(err))
}
