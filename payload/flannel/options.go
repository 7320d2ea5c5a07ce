package main

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"k8s.io/klog/v2"
)

// options are flanneld's flags. Each can be set by FLANNELD_<NAME> in the
// environment, too; the flag wins.
type options struct {
	version               bool
	kubeSubnetMgr         bool
	kubeAPIURL            string
	kubeConfigFile        string
	annotationPrefix      string
	netConfPath           string
	setNetworkUnavailable bool
	interfaces            list
	interfacePatterns     list
	interfaceReaching     string
	publicIP, publicIPv6  string
	subnetFile            string
	ipMasq                bool
	noRandomMasq          bool
	forwardRules          bool
	blackholeRoute        bool
	resyncSeconds         int
	healthzIP             string
	healthzPort           int
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// parse reads the command line and, for flags that are not on it, the environment.
func parse(args []string, env func(string) (string, bool)) (options, error) {
	var o options
	f := flag.NewFlagSet(filepath.Base(args[0]), flag.ContinueOnError)
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	f.BoolVar(&o.kubeSubnetMgr, "kube-subnet-mgr", false, "take subnets from the Kubernetes API (required)")
	f.StringVar(&o.kubeAPIURL, "kube-api-url", "", "URL of the API server; not needed in a pod")
	f.StringVar(&o.kubeConfigFile, "kubeconfig-file", "", "kubeconfig; not needed in a pod")
	f.StringVar(&o.annotationPrefix, "kube-annotation-prefix", "flannel.alpha.coreos.com", "prefix of the Node annotations")
	f.StringVar(&o.netConfPath, "net-config-path", "/etc/kube-flannel/net-conf.json", "configuration of the network")
	f.BoolVar(&o.setNetworkUnavailable, "set-node-network-unavailable", true, "clear the Node's NetworkUnavailable condition when ready")
	f.Var(&o.interfaces, "iface", "interface (name or IP) towards other nodes; may be repeated, the first match is taken")
	f.Var(&o.interfacePatterns, "iface-regex", "regular expression of interfaces (name or IP), tried after --iface; may be repeated")
	f.StringVar(&o.interfaceReaching, "iface-can-reach", "", "IP address: take the interface that routes to it")
	f.StringVar(&o.publicIP, "public-ip", "", "IPv4 address under which other nodes reach this one")
	f.StringVar(&o.publicIPv6, "public-ipv6", "", "IPv6 address under which other nodes reach this one")
	f.StringVar(&o.subnetFile, "subnet-file", "/run/flannel/subnet.env", "file that the CNI plugin reads the subnet from")
	f.BoolVar(&o.ipMasq, "ip-masq", false, "masquerade what leaves the pod network")
	f.BoolVar(&o.noRandomMasq, "ip-masq-fully-random-disable", false, "choose masqueraded ports without --random-fully")
	f.BoolVar(&o.forwardRules, "iptables-forward-rules", true, "accept forwarded packets of the pod network")
	f.BoolVar(&o.blackholeRoute, "ip-blackhole-route", false, "route the node's pod subnet to nowhere if no bridge has it")
	f.IntVar(&o.resyncSeconds, "iptables-resync", 5, "period of repairing rules, in seconds")
	f.StringVar(&o.healthzIP, "healthz-ip", "0.0.0.0", "address of the health endpoint")
	f.IntVar(&o.healthzPort, "healthz-port", 0, "port of the health endpoint; 0 is none")

	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	for _, name := range []string{"v", "vmodule", "log_backtrace_at"} {
		l := logging.Lookup(name)
		f.Var(l.Value, l.Name, l.Usage)
	}
	if err := f.Parse(args[1:]); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err := fromEnvironment(f, env); err != nil {
		return o, err
	}
	if o.version {
		return o, nil
	}
	if !o.kubeSubnetMgr {
		return o, errors.New("--kube-subnet-mgr is missing: this flanneld takes subnets from the Kubernetes API only")
	}
	if o.resyncSeconds <= 0 {
		return o, fmt.Errorf("--iptables-resync is %d, at least 1 second is right", o.resyncSeconds)
	}
	return o, nil
}

func fromEnvironment(f *flag.FlagSet, env func(string) (string, bool)) error {
	given := map[string]bool{}
	f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
	var errs []error
	f.VisitAll(func(fl *flag.Flag) {
		key := "FLANNELD_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		v, ok := env(key)
		if !ok || v == "" || given[fl.Name] {
			return
		}
		if err := f.Set(fl.Name, v); err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: %w", key, v, err))
		}
	})
	return errors.Join(errs...)
}
