package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/kiln-os/kiln/internal/bootplan"
	"github.com/kiln-os/kiln/internal/inspect"
)

func (a *app) inspectCommand() *cobra.Command {
	verify := true
	c := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what an image or a disk holds: partitions, versions, node, and every secret",
		Long: `Show what an image holds: a base image, a node's image, or a disk such as an SD card
that an image was written to. Shown are the partitions, the versions of everything in
it, the node and its cluster, and every secret with what its holder can do and until
when; never its value. The image is only read. It must be raw.

All bytes of /usr are compared with the root hash that the kernel is started with, and
the stamp with its checksum. What is damaged is reported, and the exit code is 1.

Of an image that has been booted the stamp is shown, with which it was booted. What the
node made since then, such as the keys of its kubelet and its SSH host keys, is in the
state partition, which is not read.`,
		Example: `  imagegen inspect out/kiln-1.img
  sudo imagegen inspect /dev/sdX
  imagegen inspect out/kiln-1.img --verify=false   # without reading all of /usr
  imagegen inspect out/kiln-1.img --json           # for programs; lists Debian's packages, too
  imagegen inspect out/kiln-1.img --json | jq -r '.secrets[] | [.expires, .name] | @tsv'`,
		Args: exactArgs("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			progress := a.reporter()
			if verify {
				progress.Step("check " + args[0])
			}
			r, err := inspect.Image(cmd.Context(), args[0], inspect.Options{Verify: verify, Bytes: progress.Bytes, Now: time.Now()})
			if err != nil {
				err = orInterrupted(cmd.Context(), err)
				progress.Finish(err)
				return err
			}
			if len(r.Problems) > 0 {
				err = errors.New(args[0] + ": " + strings.Join(r.Problems, "\n"+args[0]+": "))
			}
			progress.Finish(err)
			show := a.printJSON
			if !a.json {
				show = func(any) error { return a.printReport(r) }
			}
			return errors.Join(show(r), err)
		},
	}
	f := c.Flags()
	f.BoolVar(&verify, "verify", true, "compare all bytes of /usr with the root hash")
	a.jsonFlag(c)
	return c
}

// printReport prints a report for people.
func (a *app) printReport(r *inspect.Report) error {
	t := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = printable(c)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	row("image", fmt.Sprintf("%s, %s", r.Image, mebibytes(r.Size)))
	row("state", map[inspect.State]string{
		inspect.StateBase:    "a base image: imagegen stamp makes it a node's",
		inspect.StateStamped: "a node's, which has not been booted",
		inspect.StateBooted:  "a node's, which has been booted",
	}[r.State])
	row("profile", fmt.Sprintf("%s (%s)", r.Profile, r.Arch))
	row("disk", r.DiskID.String())
	if r.Node != nil {
		printNode(row, r.Node)
	}
	for _, s := range r.Systems {
		printSystem(row, s)
	}
	row()
	row("PARTITION", "TYPE", "START", "SIZE", "UUID")
	for _, p := range r.Partitions {
		row(p.Name, p.Type, mebibytes(p.Start), mebibytes(p.Size), p.UUID.String())
	}
	row()
	if len(r.Secrets) == 0 {
		row(map[bool]string{true: "no secrets in the stamp", false: "no secrets"}[r.State == inspect.StateBooted])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Secrets) > 0 {
		row("SECRET", "EXPIRES", "FILE")
	}
	for _, s := range r.Secrets {
		expires := s.Expires.String()
		if s.Expired {
			expires += " (expired)"
		}
		row(s.Name, expires, s.Path)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	// What a secret opens is a sentence, and would tear the columns apart.
	if len(r.Secrets) > 0 {
		row()
		row("WHO HAS", "CAN")
	}
	seen := map[string]bool{}
	for _, s := range r.Secrets {
		if !seen[s.Name] {
			seen[s.Name] = true
			row(s.Name, s.Reach)
		}
	}
	if r.State == inspect.StateBooted {
		row()
		row("The state partition holds what the node made since its first boot, its own keys among it. It is not read.")
	}
	return t.Flush()
}

func printNode(row func(...string), n *inspect.Node) {
	row()
	row("cluster", n.Cluster)
	if n.Machines == nil {
		row("node", n.Name)
	} else {
		row("image of", fmt.Sprintf("%s: %d machines of a table, and others called %s and the end of their MAC address", n.Name, len(n.Machines.Machines), n.Machines.NamePrefix))
	}
	row("role", map[bootplan.Role]string{
		bootplan.RoleInit:             "control plane, which creates the cluster",
		bootplan.RoleJoinControlPlane: "control plane, which joins the cluster",
		bootplan.RoleJoinWorker:       "worker",
	}[n.Role])
	address := "by DHCP"
	if len(n.Addresses) > 0 {
		address = strings.Join(n.Addresses, ", ")
	}
	if n.Gateway != "" {
		address += ", gateway " + n.Gateway
	}
	if n.Interface != "" {
		address += ", interface " + n.Interface
	}
	row("address", address)
	if n.Machines != nil {
		for _, m := range n.Machines.Machines {
			at := "by DHCP"
			if len(m.Addresses) > 0 {
				at = strings.Join(m.Addresses, ", ")
			}
			row("machine", fmt.Sprintf("%s, %s: %s", m.Name, m.Key(), at))
		}
	}
	row("API server", n.ControlPlane)
	row("wants", "Kubernetes "+n.Kubernetes)
	if len(n.Logins) == 0 {
		row("logins", "none")
	}
	for _, l := range n.Logins {
		row("login", strings.TrimSpace(fmt.Sprintf("%s with SSH key %s %s", l.User, l.Fingerprint, l.Comment)))
	}
	for _, e := range n.Elsewhere {
		row("not here", e+", which the node fetches at its first boot")
	}
}

func printSystem(row func(...string), s inspect.System) {
	row()
	row("system", s.Boot)
	row("Kiln", s.Kiln)
	row("OS", s.OS)
	if s.Debian != nil {
		judged := ""
		if s.Debian.AsOf != "" {
			judged = ", judged as of " + s.Debian.AsOf
		}
		row("packages", fmt.Sprintf("%d of Debian %s as of %s%s (--json lists them)", len(s.Debian.Packages), s.Debian.Suite, s.Debian.Date.Format(time.DateOnly), judged))
	}
	row("kernel", s.Kernel)
	kubernetes := s.Kubernetes
	if s.Payload != nil {
		kubernetes += fmt.Sprintf(" (payload: %s)", s.Payload.Source)
	}
	row("Kubernetes", kubernetes)
	if s.Payload != nil {
		for _, p := range s.Payload.Parts {
			row("", p.Name+" "+p.Version)
		}
	}
	row("root hash", s.Usr.RootHash)
	row("/usr", map[inspect.Check]string{
		inspect.CheckIntact:  "every byte is what the root hash stands for",
		inspect.CheckDamaged: "DAMAGED: it is not what the root hash stands for",
		inspect.CheckSkipped: "not checked",
	}[s.Usr.Check])
}

func mebibytes(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// printable keeps what an image of unknown origin says from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
