//go:build long

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// When too many accounts of a wave fail it stops by itself: nobody else begins, and
// he notices nothing.
func TestAWaveStopsByItself(t *testing.T) {
	t.Parallel()
	w := newWaveWorld(t)
	// Everybody, but two of them cannot be created.
	w.command("added 1", "wave", "add", "*")
	w.enter("full1")
	w.enter("full2")
	var d domainStatus
	if err := eventually(3*time.Minute, func() (err error) {
		if d, err = w.domain(); err == nil && d.StoppedBecause == "" {
			err = fmt.Errorf("not stopped: %+v", d)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if d.Active || !strings.HasPrefix(d.StoppedBecause, "2 accounts have failed") || !strings.Contains(d.StoppedBecause, "no licence is left") {
		t.Errorf("%+v", d)
	}
	for _, name := range []string{"carla", "gerd"} {
		w.enter(name)
		w.reads(name, "at_source")
	}
	if text := w.metrics(); !strings.Contains(text, "migproxy_migration_stopped_by_itself{domain=\"example.com\"} 1\n") {
		t.Error("no metric says so")
	}
	if n := strings.Count(w.read("migproxy.log"), "THE MIGRATION HAS STOPPED BY ITSELF"); n != 1 {
		t.Errorf("the log says %d times that it stopped", n)
	}
	w.command("THE MIGRATION OF example.com HAS STOPPED BY ITSELF", "status")
	w.command("IS ACTIVE", "start")
	w.enter("gerd")
	w.reads("gerd", "active")
	if d, err := w.domain(); err != nil || d.StoppedBecause != "" || !d.Active {
		t.Errorf("%+v, %v", d, err)
	}
}
