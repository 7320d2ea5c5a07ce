// Package manpage writes a program's manual pages out of its help texts.
package manpage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/version"
)

// Date is the date on the pages: $SOURCE_DATE_EPOCH. There is no other, so that
// the same sources give the same pages.
func Date(getenv func(string) string) (time.Time, error) {
	s := getenv("SOURCE_DATE_EPOCH")
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: the pages' date is a number of seconds since 1970; make docs sets it", s)
	}
	return time.Unix(n, 0).UTC(), nil
}

// Write puts a page for root and for each command below it into dir/manN, N being
// the section. Help topics become sections of root's page. The texts of the
// commands are changed on the way; the program is expected to end then.
func Write(root *cobra.Command, dir string, section int, date time.Time) error {
	dir = filepath.Join(dir, fmt.Sprintf("man%d", section))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true // the tag has the day of the build
	topics := ""
	for _, c := range root.Commands() {
		if c.IsAdditionalHelpTopicCommand() {
			topics += fmt.Sprintf("\n\n# %s\n%s", strings.ToUpper(strings.ReplaceAll(c.Name(), "-", " ")), markdown(c.Long))
		}
	}
	return write(root, dir, section, date, topics)
}

func write(c *cobra.Command, dir string, section int, date time.Time, more string) error {
	c.Long = markdown(c.Long) + more
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: strconv.Itoa(section), Date: &date, Source: "Kiln " + version.Version, Manual: "Kiln"}
	if err := doc.GenMan(c, header, &page); err != nil {
		return fmt.Errorf("manual page of %s: %w", c.CommandPath(), err)
	}
	name := fmt.Sprintf("%s.%d", strings.ReplaceAll(c.CommandPath(), " ", "-"), section)
	if err := atomicfile.WriteFile(filepath.Join(dir, name), page.Bytes(), 0o644); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := write(sub, dir, section, date, ""); err != nil {
			return err
		}
	}
	return nil
}

// markdown turns a help text into what doc.GenMan reads: lines that the text
// indents, which are tables and commands, become blocks that keep their lines.
func markdown(text string) string {
	var out []string
	inBlock := false
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		// cobra's own texts indent with tabs, which are blocks in Markdown already.
		indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
		if indented != inBlock && line != "" {
			out = append(out, "")
			inBlock = indented
		}
		if strings.HasPrefix(line, "  ") {
			line = "    " + strings.TrimPrefix(line, "  ")
		}
		if !indented { // where a backslash takes the meaning from what follows
			line = strings.ReplaceAll(line, `\`, `\\`)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}
