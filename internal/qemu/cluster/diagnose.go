package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/qemu"
)

// questions are asked over SSH when a boot went wrong. Each works without the
// others: what is broken is not known yet.
var questions = []struct{ file, command string }{
	{"failed-units.txt", "systemctl --failed --no-pager --no-legend; systemctl list-jobs --no-pager"},
	{"firstboot-status.txt", "firstboot status"},
	{"journal-kiln.txt", "journalctl --no-pager -b -u firstboot -u kubelet -u containerd -n 200"},
	{"journal.txt", "journalctl --no-pager -b -n 4000"},
	// No CRI tool is needed to read what containers wrote: the kubelet keeps it in files.
	{"pod-logs.txt", `for f in $(find /var/log/pods -name '*.log' | sort); do echo "==> $f"; tail -n 80 "$f"; done`},
	{"network.txt", "ip addr; ip route; resolvectl status --no-pager; nft list tables"},
	{"storage.txt", "lsblk -o NAME,SIZE,TYPE,FSTYPE,PARTLABEL,MOUNTPOINTS; findmnt; df -h"},
	{"load.txt", "uptime; free -m; ps -eo pid,ppid,stat,etime,time,rss,args --sort=-time | head -n 60"},
	{"kernel.txt", "dmesg"},
}

// Diagnose gathers into dir what explains a boot that went wrong: the console,
// what QEMU said, the state of the API and answers from the node. client and ssh
// may be nil. It returns a summary for the test's output. What cannot be
// gathered is noted and keeps nothing else from being.
func Diagnose(ctx context.Context, dir string, m *qemu.Machine, client kubernetes.Interface, s *SSH) string {
	var b strings.Builder
	section := func(title, body string) { fmt.Fprintf(&b, "--- %s\n%s\n", title, strings.TrimSpace(body)) }
	save := func(name, body string) {
		if err := atomicfile.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			fmt.Fprintf(&b, "--- %v\n", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Sprintf("no diagnostics: %v", err)
	}
	section("console, last lines (all of it: "+filepath.Join(m.Dir(), "console.log")+")", m.Console().Tail(60))
	if e := m.StderrTail(); e != "" {
		section("QEMU's standard error", e)
	}
	if client != nil {
		text := apiState(ctx, client)
		save("api.txt", text)
		section("API", text)
	}
	if s != nil {
		reached := true
		for _, q := range questions {
			if !reached {
				break
			}
			// A machine under emulation that is also in trouble answers slowly.
			ask, cancel := context.WithTimeout(ctx, m.Scale(15*time.Second))
			out, err := s.Run(ask, q.command)
			cancel()
			var remote *RemoteError
			if err != nil {
				out += "\n" + err.Error() + "\n"
				reached = errors.As(err, &remote)
			}
			save(q.file, out)
			switch q.file {
			case "failed-units.txt", "firstboot-status.txt":
				section(q.command, out)
			case "journal-kiln.txt":
				section(q.command, lastLines(out, 60))
			default:
				if !reached {
					section("SSH", err.Error())
				}
			}
		}
	}
	fmt.Fprintf(&b, "--- everything is kept in %s and %s\n", dir, m.Dir())
	return b.String()
}

// apiState describes what the API server knows.
func apiState(ctx context.Context, c kubernetes.Interface) string {
	s, err := Get(ctx, c)
	if err != nil {
		return "not reachable: " + oneLine(err.Error())
	}
	var b strings.Builder
	b.WriteString(s.Table())
	if p := s.Pending(); len(p) > 0 {
		fmt.Fprintf(&b, "pending:\n  %s\n", strings.Join(p, "\n  "))
	}
	return b.String()
}

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(l[max(len(l)-n, 0):], "\n")
}
