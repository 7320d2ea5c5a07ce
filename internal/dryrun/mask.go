package dryrun

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kiln-os/kiln/internal/atomicfile"
)

// masked stands where a key or a token stood.
const masked = "[redacted]"

// Mask takes keys and credentials out of the files that phases wrote: the cluster
// would accept them, and they outlive the rehearsal. Links to the node's own files stay.
func (f *Folder) Mask() error {
	return filepath.WalkDir(f.Paths.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		switch filepath.Ext(path) {
		case ".key":
			return atomicfile.WriteFile(path, []byte(masked+"\n"), 0o600)
		case ".conf":
			return maskKubeconfig(path)
		}
		return nil
	})
}

// maskKubeconfig leaves a .conf that is no kubeconfig as it is.
func maskKubeconfig(path string) error {
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), "kind: Config") {
		return err
	}
	kc, err := clientcmd.Load(data)
	if err != nil {
		return os.Remove(path) // what cannot be read cannot be masked
	}
	for _, a := range kc.AuthInfos {
		for _, s := range []*string{&a.Token, &a.Password} {
			if *s != "" {
				*s = masked
			}
		}
		if len(a.ClientKeyData) > 0 {
			a.ClientKeyData = []byte(masked)
		}
	}
	if data, err = clientcmd.Write(*kc); err != nil {
		return os.Remove(path)
	}
	return atomicfile.WriteFile(path, data, 0o600)
}
