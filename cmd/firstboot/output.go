package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// output is how a command prints its result: kubeadm's -o, and --json, which every
// command of Kiln has.
type output struct {
	format string
	json   bool
}

var formats = []string{"text", "json", "yaml"}

func (o *output) flags(c *cobra.Command) {
	c.Flags().StringVarP(&o.format, "output", "o", "text", "output format: "+strings.Join(formats, ", "))
	c.Flags().BoolVar(&o.json, "json", false, "the same as -o json")
}

// check refuses unknown formats, before anything is done.
func (o *output) check(c *cobra.Command) error {
	if !slices.Contains(formats, o.format) {
		return usageError{fmt.Errorf("unknown output format %q; there are %s", o.format, strings.Join(formats, ", "))}
	}
	if o.json {
		if c.Flags().Changed("output") && o.format != "json" {
			return usageError{fmt.Errorf("--json and -o %s contradict each other", o.format)}
		}
		o.format = "json"
	}
	return nil
}

// text reports whether the output is for people.
func (o *output) text() bool { return o.format == "text" }

// printObjects writes objects one after the other, as kubeadm does.
func printObjects[T any](w io.Writer, o output, objects ...T) error {
	for i, v := range objects {
		var b []byte
		var err error
		if o.format == "yaml" {
			if b, err = yaml.Marshal(v); err == nil && i > 0 {
				b = append([]byte("---\n"), b...)
			}
		} else if b, err = json.MarshalIndent(v, "", "    "); err == nil {
			b = append(b, '\n')
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
