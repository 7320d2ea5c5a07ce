package resume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// poll is how often this looks again for what is about to be there.
const poll = 50 * time.Millisecond

// Dial connects to the container runtime at a socket, which may be made later.
func Dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: poll, Multiplier: 1.5, MaxDelay: 4 * poll}, MinConnectTimeout: time.Second}))
}

// ThisMachine is the running machine with a connection of Dial's.
func ThisMachine(conn *grpc.ClientConn, manifests string, log func(format string, a ...any)) Machine {
	return Machine{Runtime: criv1.NewRuntimeServiceClient(conn), Manifests: manifests, Slice: makeSlice, Address: waitAddress, Log: log}
}

// waitAddress waits until a program can listen on the address. An IPv6 address that
// is still checked for duplicates is on its device already and refuses.
func waitAddress(ctx context.Context, host string) error {
	for {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err == nil {
			return l.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the machine does not have its address: %w", err)
		case <-time.After(poll):
		}
	}
}

// makeSlice makes a pod's slice with the properties that the kubelet gives it, see
// systemd.resource-control(5).
func makeSlice(ctx context.Context, name string, weight uint64) error {
	// Without the bus, which comes later in the boot.
	c, err := systemd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer c.Close()
	done := make(chan string, 1)
	value := func(name string, v any) systemd.Property {
		return systemd.Property{Name: name, Value: godbus.MakeVariant(v)}
	}
	_, err = c.StartTransientUnitContext(ctx, name, "replace", []systemd.Property{
		systemd.PropDescription("libcontainer container " + name),
		systemd.PropWants(parentSlice(name)),
		value("DefaultDependencies", false), value("CPUWeight", weight),
		value("CPUAccounting", true), value("MemoryAccounting", true), value("TasksAccounting", true), value("IOAccounting", true),
	}, done)
	var exists godbus.Error
	if errors.As(err, &exists) && exists.Name == "org.freedesktop.systemd1.UnitExists" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("start %s: the job is %s", name, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start %s: %w", name, context.Cause(ctx))
	}
}

// parentSlice is the slice that a slice is in: its name up to the last dash, see
// systemd.slice(5).
func parentSlice(name string) string {
	if i := strings.LastIndex(name, "-"); i > 0 {
		return name[:i] + ".slice"
	}
	return "-.slice"
}
