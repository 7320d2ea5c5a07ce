package cluster

import (
	"fmt"
	"sort"
	"strings"
	"text/tabwriter"
)

// Table renders nodes and pods as kubectl get would, sorted by name.
func (s State) Table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATUS\tVERSION\tOS\tKERNEL\tRUNTIME")
	nodes := append(s.Nodes[:0:0], s.Nodes...)
	sort.Slice(nodes, func(i, j int) bool { return nodes[i].Name < nodes[j].Name })
	for _, n := range nodes {
		status := "Ready"
		if ready, _ := NodeReady(n); !ready {
			status = "NotReady"
		}
		i := n.Status.NodeInfo
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, status, i.KubeletVersion, i.OSImage, i.KernelVersion, i.ContainerRuntimeVersion)
	}
	_ = w.Flush() // into memory
	b.WriteByte('\n')
	w = tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tPOD\tREADY\tSTATUS\tRESTARTS\tIP")
	pods := append(s.Pods[:0:0], s.Pods...)
	sort.Slice(pods, func(i, j int) bool {
		a, b := pods[i], pods[j]
		return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
	})
	for _, p := range pods {
		ready, restarts := 0, int32(0)
		for _, c := range p.Status.ContainerStatuses {
			if c.Ready {
				ready++
			}
			restarts += c.RestartCount
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\t%d\t%s\n", p.Namespace, p.Name, ready, len(p.Spec.Containers), p.Status.Phase, restarts, p.Status.PodIP)
	}
	_ = w.Flush()
	return b.String()
}
