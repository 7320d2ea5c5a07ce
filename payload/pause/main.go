// Command pause is the first process of every pod: it holds the pod's namespaces,
// reaps the processes that the pod's containers leave behind when they share its
// PID namespace, and ends when it is told to.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-v" {
		fmt.Println("pause (Kiln) " + version)
		return
	}
	// Signals are caught before the first wait: none of a child that ended early is lost.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	children := make(chan os.Signal, 1) // one pending is enough: reap takes all
	signal.Notify(children, syscall.SIGCHLD)
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "pause: warning: not the first process of its PID namespace")
	}
	reap()
	for {
		select {
		case s := <-stop:
			fmt.Fprintf(os.Stderr, "pause: %s, shutting down\n", s)
			return
		case <-children:
			reap()
		}
	}
}

// version is that of Kubernetes' pause image whose place this takes; set when it
// is linked.
var version = "unknown"

// reap waits for every child that has ended.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
