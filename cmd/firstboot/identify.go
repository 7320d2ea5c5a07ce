package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/host"
	"github.com/kiln-os/kiln/internal/machine"
)

func (a *app) identifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "identify", Short: "Find this machine's name in the table of its image; what kiln-machine.service starts", Args: noArgs,
		Long: `Find which row of /etc/kiln/machines.yaml this machine is, by the Ethernet addresses of
its network interfaces and by its serial number, and give it the name and addresses
that stand there. A machine in no row is called after the last three bytes of its
Ethernet address. The name is written into the boot plan and stays, whatever is plugged
in later. A machine that has its name keeps it: nothing is done then.

It runs before the network is set up; firstboot run does it, too.`,
		Example: `  firstboot identify`,
		RunE:    func(c *cobra.Command, _ []string) error { return a.identify(c.Context()) },
	}
}

// identify gives the running machine the name and addresses of its row, if it has none
// yet.
func (a *app) identify(ctx context.Context) error {
	if a.paths.Root != "/" {
		return usageError{fmt.Errorf("--root %s: only the running machine can be identified", a.paths.Root)}
	}
	_, plan, err := a.readPlan()
	if err != nil || !plan.Node.FromTable {
		return err
	}
	row, err := a.findRow(ctx)
	if err != nil {
		return err
	}
	if err := a.paths.SetHostname(row.Name); err != nil {
		return err
	}
	return settle(a.paths, plan, row)
}

// settle writes what a row says into the network's settings and the plan. The plan
// comes last: until it has the name, all of this is done again.
func settle(paths host.Paths, plan bootplan.Plan, row bootplan.Machine) error {
	if row.Network != "" {
		if err := atomicfile.WriteFile(paths.NetworkFile(), []byte(row.Network), 0o644); err != nil {
			return err
		}
	}
	data, err := plan.As(row).Marshal()
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(paths.BootPlan(), data, 0o600)
}

// findRow returns the row of this machine. If it has nothing by which it could be
// known, it waits for a network device, as one on USB comes late.
func (a *app) findRow(ctx context.Context) (bootplan.Machine, error) {
	data, err := os.ReadFile(a.paths.Machines())
	if err != nil {
		return bootplan.Machine{}, planError{fmt.Errorf("table of machines: %w; Ignition writes it on the first boot", err)}
	}
	table, err := bootplan.ParseMachines(data)
	if err != nil {
		return bootplan.Machine{}, planError{err}
	}
	for said := false; ; said = true {
		hw, err := machine.Find(a.paths.Root)
		if err != nil {
			return bootplan.Machine{}, err
		}
		row, found, err := hw.Choose(table)
		switch {
		case err == nil && found:
			_, err = fmt.Fprintf(a.Err, "this machine is %s: the table has its %s\n", row.Name, row.Key())
			return row, err
		case err == nil:
			_, err = fmt.Fprintf(a.Err, "this machine is in no row of %s; after its %s it is called %s\n", bootplan.MachinesPath, row.Key(), row.Name)
			return row, err
		case !errors.Is(err, machine.ErrNoNetwork):
			return row, err
		case !said:
			if _, err := fmt.Fprintf(a.Err, "this machine has %v; waiting for one\n", err); err != nil {
				return row, err
			}
		}
		select {
		case <-ctx.Done():
			return row, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}
