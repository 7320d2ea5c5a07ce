// Package manpagetest holds manual pages to the commands they describe.
package manpagetest

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Read returns the files below dir by their path.
func Read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(root, p)
		files[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Complete fails unless each command has a page in dir with its text and each of
// its flags, and the page of the command above refers to it.
func Complete(t *testing.T, root *cobra.Command, dir string, section int, files map[string]string) {
	t.Helper()
	each(root, func(c *cobra.Command) {
		if c.IsAdditionalHelpTopicCommand() {
			return // a section of root's page
		}
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		path := fmt.Sprintf("%s/%s.%d", dir, name, section)
		page := strings.ReplaceAll(files[path], `\`, "")
		if page == "" {
			t.Errorf("%s has no page %s", c.CommandPath(), path)
			return
		}
		if !strings.Contains(page, c.Short) {
			t.Errorf("%s lacks %q", path, c.Short)
		}
		c.InheritedFlags() // merges the flags of the commands above
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(page, "--"+f.Name+"fP") || !f.Hidden && !strings.Contains(flat(page), flat(f.Usage)) {
				t.Errorf("%s lacks the flag --%s, or its text", path, f.Name)
			}
		})
		if c.HasParent() {
			above := fmt.Sprintf("%s/%s.%d", dir, strings.ReplaceAll(c.Parent().CommandPath(), " ", "-"), section)
			if !strings.Contains(strings.ReplaceAll(files[above], `\`, ""), name+"(") {
				t.Errorf("%s does not refer to %s", above, name)
			}
		}
	})
}

// Examples fails for each command without examples in its help text.
func Examples(t *testing.T, root *cobra.Command) {
	t.Helper()
	each(root, func(c *cobra.Command) {
		if c.Runnable() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example of itself", c.CommandPath())
		}
	})
}

func each(c *cobra.Command, f func(*cobra.Command)) {
	if c.Hidden || c.Name() == "help" {
		return
	}
	f(c)
	for _, sub := range c.Commands() {
		each(sub, f)
	}
}

func flat(s string) string { return strings.Join(strings.Fields(s), " ") }
