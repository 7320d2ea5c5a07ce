package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// health answers the DaemonSet's probes: /healthz as long as flanneld runs,
// /readyz once the subnet file and the packet filter rules are there.
type health struct{ ready atomic.Bool }

func (h *health) set() { h.ready.Store(true) }

func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/healthz":
		io.WriteString(w, "flanneld is running")
	case r.URL.Path == "/readyz" && h.ready.Load():
		io.WriteString(w, "flanneld is ready")
	case r.URL.Path == "/readyz":
		http.Error(w, "flanneld is not ready yet", http.StatusServiceUnavailable)
	default:
		http.NotFound(w, r)
	}
}

// serve answers at address until ctx ends.
func (h *health) serve(ctx context.Context, wg *sync.WaitGroup, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	wg.Add(2)
	go func() {
		defer wg.Done()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			klog.Errorf("health endpoint: %v", err)
		}
	}()
	go func() {
		defer wg.Done()
		<-ctx.Done()
		timeout, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := s.Shutdown(timeout); err != nil {
			klog.Errorf("health endpoint: %v", err)
		}
	}()
	return nil
}
