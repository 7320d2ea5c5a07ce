package build

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kiln-os/kiln/internal/atomicfile"
	"github.com/kiln-os/kiln/internal/cache"
	"github.com/kiln-os/kiln/internal/diskspace"
	"github.com/kiln-os/kiln/payload"
)

// lockOutput makes the output folder, keeps two builds from writing to it at once,
// and removes what a killed one left there.
func lockOutput(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, unusableOutput(dir, err)
	}
	unlock, err = cache.TryLock(filepath.Join(dir, ".kiln.lock"))
	var held *cache.LockedError
	switch {
	case errors.As(err, &held):
		return nil, fmt.Errorf("%s writes to output folder %s: wait until it is done, or give another folder with -o", held.Holder(), dir)
	case err != nil:
		return nil, unusableOutput(dir, err)
	}
	if err := atomicfile.Sweep(dir); err != nil {
		unlock()
		return nil, unusableOutput(dir, err)
	}
	return unlock, nil
}

func unusableOutput(dir string, err error) error {
	return diskspace.Explain(fmt.Errorf("output folder %s cannot be written: %w; give another with -o", dir, err), dir, 0, false)
}

// checkClock refuses a clock that is certainly wrong: what is made now carries its
// time for years.
func checkClock(now time.Time) error {
	released, err := payload.Released()
	if err != nil {
		return err
	}
	if now.Before(released) {
		return fmt.Errorf("this machine's clock says %s, but Kubernetes %s, which this imagegen compiles, was released at %s: certificates and tokens would get wrong dates; set the clock",
			now.UTC().Format(time.RFC3339), payload.KubernetesVersion, released.Format(time.RFC3339))
	}
	_, err = SourceDate(now)
	return err
}

// File systems of an image hold times from FAT's first year on, and until 32
// bits of seconds are full.
const (
	firstTime = 315532800 // 1980-01-01
	lastTime  = math.MaxUint32
)

// SourceDate is the time on everything in an image: $SOURCE_DATE_EPOCH (see
// reproducible-builds.org/specs/source-date-epoch), else that of the lock.
func SourceDate(lock time.Time) (time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return lock, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < firstTime || n > lastTime {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: a number of seconds since 1970 is right, from %d (1980) to %d (2106)", s, int64(firstTime), int64(lastTime))
	}
	return time.Unix(n, 0).UTC(), nil
}
