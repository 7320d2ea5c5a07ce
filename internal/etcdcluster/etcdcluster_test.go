package etcdcluster

import "testing"

func TestInitialCluster(t *testing.T) {
	list := []Member{
		{ID: 0xbeef, PeerURL: "https://10.0.0.3:2380", Learner: true}, // another machine that joins
		{ID: 2, PeerURL: "https://10.0.0.2:2380"},                     // this one, not started
		{ID: 1, Name: "cp1", PeerURL: "https://10.0.0.1:2380"},
	}
	const want = "beef=https://10.0.0.3:2380,cp1=https://10.0.0.1:2380,cp2=https://10.0.0.2:2380"
	if got := InitialCluster(list, "cp2", "https://10.0.0.2:2380"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if m, ok := Find(list, "https://10.0.0.1:2380"); !ok || m.Name != "cp1" || !m.Started() {
		t.Errorf("%+v, %v", m, ok)
	}
	if m, ok := Find(list, "https://10.0.0.9:2380"); ok {
		t.Errorf("found %+v", m)
	}
}
