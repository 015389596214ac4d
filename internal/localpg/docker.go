package localpg

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
)

// image is of the major version that the other ways are tested with.
const image = "postgres:15-alpine"

// startDocker runs a container. No Docker daemon was at hand when this was
// written: that there is none is tested, the rest compiles and is unverified.
func startDocker(ctx context.Context, o Options) (_ *Server, err error) {
	docker, err := dialDocker(ctx)
	if err != nil {
		return nil, &unavailable{fmt.Sprintf("no daemon answers: %v", err)}
	}
	defer docker.Close()

	settings := keptSettings(o)
	if o.DataDir == "" {
		settings = throwawaySettings(o)
	}
	options := []testcontainers.ContainerCustomizer{
		testcontainers.WithCmd(append([]string{"postgres"}, arguments(settings)...)...),
	}
	describe := fmt.Sprintf("PostgreSQL in a container of %s, throw-away", image)
	var undo cleanups
	defer func() {
		if err != nil {
			_ = undo.run()
		}
	}()
	if o.DataDir != "" {
		dir, err := filepath.Abs(o.DataDir)
		if err != nil {
			return nil, err
		}
		if err := makeDirs(dir, account{}); err != nil {
			return nil, err
		}
		lock, err := lockFile(ctx, filepath.Join(dir, "lock"), 15*time.Second)
		if err != nil {
			return nil, err
		}
		undo.add(lock.Close)
		// The container of a run that was killed may still be there: both would
		// be process 1 of their container, so PostgreSQL's own guard against two
		// servers on the same data does not see it.
		name := "mendian-" + shortHash(dir)
		if err := removeContainer(ctx, docker, name); err != nil {
			return nil, err
		}
		options = append(options,
			testcontainers.WithName(name),
			// A bind, because a volume that testcontainers makes is removed with its session.
			testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
				h.Binds = append(h.Binds, name+":/var/lib/postgresql/data")
			}))
		describe = fmt.Sprintf("PostgreSQL in a container of %s, data kept in the Docker volume %s", image, name)
	}
	o.Logf("starting a container of %s; the image is pulled if it is not there", image)
	c, err := postgres.Run(ctx, image, options...)
	if c != nil {
		undo.add(func() error {
			return testcontainers.TerminateContainer(c, testcontainers.StopTimeout(30*time.Second))
		})
	}
	if err != nil {
		return nil, err
	}
	dsn, err := c.ConnectionString(ctx, "sslmode=disable")
	if err != nil {
		return nil, err
	}
	// The image starts a first server to initialise, which does not listen on
	// TCP: what answers here is the one that stays.
	if err := answers(ctx, dsn, time.Minute); err != nil {
		return nil, err
	}
	return &Server{dsn: dsn, describe: describe, stop: undo.run}, nil
}

// dialDocker finds the daemon as testcontainers does and asks whether it is
// there. That search panics where it finds nothing to try.
func dialDocker(ctx context.Context) (c *testcontainers.DockerClient, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("%v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err = testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Ping(ctx, client.PingOptions{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func removeContainer(ctx context.Context, docker *testcontainers.DockerClient, name string) error {
	patience := 30
	if _, err := docker.ContainerStop(ctx, name, client.ContainerStopOptions{Timeout: &patience}); err != nil {
		return nil //nolint:nilerr // there is none; if it can't be stopped, its name keeps ours from starting
	}
	_, err := docker.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true})
	return err
}

// answers tries to connect until it works.
func answers(ctx context.Context, dsn string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			return conn.Close(ctx)
		}
		if pauseErr := pause(ctx, 50*time.Millisecond); pauseErr != nil {
			return fmt.Errorf("no answer within %s: %w", patience, err)
		}
	}
}
