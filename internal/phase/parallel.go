package phase

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Parallel runs the parts of a phase that do not depend on each other, as many at a
// time as there are processors. After an error or the end of ctx no further part
// starts; it returns the first error when all parts that started are over.
func Parallel(ctx context.Context, parts []func() error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, part := range parts {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return part()
		})
	}
	return group.Wait()
}
