package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Units are the node's systemd units. Tests replace it.
type Units interface {
	// Reload makes systemd read its unit files again.
	Reload(ctx context.Context) error
	// Restart restarts a unit, or starts it, and waits until that job is done.
	Restart(ctx context.Context, unit string) error
	// Stop stops a unit and waits until it is stopped. A unit that is not loaded is no error.
	Stop(ctx context.Context, unit string) error
	// Active reports whether the unit runs; a unit that does not exist does not.
	Active(ctx context.Context, unit string) (bool, error)
	// Enabled returns systemd's UnitFileState, such as "enabled", "static" or
	// "disabled"; "" for a unit that does not exist.
	Enabled(ctx context.Context, unit string) (string, error)
}

// Systemd is the system manager, reached over D-Bus. Every call has its own
// connection, so that a restart of dbus-daemon between calls does no harm.
type Systemd struct{}

func (Systemd) with(ctx context.Context, f func(*dbus.Conn) error) error {
	// The system bus, or systemd's private socket where there is no bus.
	c, err := dbus.NewWithContext(ctx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer c.Close()
	return f(c)
}

// Reload implements Units.
func (s Systemd) Reload(ctx context.Context) error {
	return s.with(ctx, func(c *dbus.Conn) error {
		if err := c.ReloadContext(ctx); err != nil {
			return fmt.Errorf("systemd daemon-reload: %w", err)
		}
		return nil
	})
}

// Restart implements Units.
func (s Systemd) Restart(ctx context.Context, unit string) error {
	return s.job(ctx, "restart", unit, (*dbus.Conn).RestartUnitContext)
}

// Stop implements Units.
func (s Systemd) Stop(ctx context.Context, unit string) error {
	return s.job(ctx, "stop", unit, (*dbus.Conn).StopUnitContext)
}

type jobFunc func(c *dbus.Conn, ctx context.Context, name, mode string, ch chan<- string) (int, error)

func (s Systemd) job(ctx context.Context, verb, unit string, do jobFunc) error {
	return s.with(ctx, func(c *dbus.Conn) error {
		result := make(chan string, 1)
		if _, err := do(c, ctx, unit, "replace", result); err != nil {
			if verb == "stop" && isNoSuchUnit(err) {
				return nil
			}
			return fmt.Errorf("systemd: %s %s: %w", verb, unit, err)
		}
		select {
		case r := <-result:
			if r != "done" {
				return fmt.Errorf("systemd: %s %s: the job ended as %q; see journalctl -u %s", verb, unit, r, unit)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("systemd: %s %s: %w", verb, unit, ctx.Err())
		}
	})
}

// Active implements Units.
func (s Systemd) Active(ctx context.Context, unit string) (bool, error) {
	var state string
	err := s.with(ctx, func(c *dbus.Conn) error {
		p, err := c.GetUnitPropertyContext(ctx, unit, "ActiveState")
		if err != nil {
			if isNoSuchUnit(err) {
				return nil
			}
			return fmt.Errorf("systemd: state of %s: %w", unit, err)
		}
		state, _ = p.Value.Value().(string)
		return nil
	})
	return state == "active", err
}

// Enabled implements Units.
func (s Systemd) Enabled(ctx context.Context, unit string) (string, error) {
	var state string
	err := s.with(ctx, func(c *dbus.Conn) error {
		p, err := c.GetUnitPropertyContext(ctx, unit, "UnitFileState")
		if err != nil {
			if isNoSuchUnit(err) {
				return nil
			}
			return fmt.Errorf("systemd: enablement of %s: %w", unit, err)
		}
		state, _ = p.Value.Value().(string)
		return nil
	})
	return state, err
}

// isNoSuchUnit recognises the D-Bus errors for a unit that does not exist.
func isNoSuchUnit(err error) bool {
	var e godbus.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Name {
	case "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.LoadFailed":
		return true
	}
	return false
}
