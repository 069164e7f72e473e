package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/common/expfmt"

	"activerelay/api"
	"activerelay/api/rest"
)

// readinessTimeout is how long the database may take to be called ready.
const readinessTimeout = 2 * time.Second

// GetHealth answers while the process can answer at all.
func (a *API) GetHealth(context.Context, rest.GetHealthRequestObject) (rest.GetHealthResponseObject, error) {
	return rest.GetHealth200JSONResponse{Status: api.HealthStatusOk, Version: optional(a.Version)}, nil
}

// GetReadiness answers whether the database can be written and has the schema of this build. Why it is not goes to the
// log: the caller may be anybody.
func (a *API) GetReadiness(ctx context.Context, _ rest.GetReadinessRequestObject) (rest.GetReadinessResponseObject, error) {
	ctx, cancel := context.WithTimeout(ctx, readinessTimeout)
	defer cancel()
	checks := []api.HealthCheck{
		a.check(ctx, "database", "cannot be written", a.Store.Ping),
		a.check(ctx, "schema", "is not the one of this program", a.checkSchema),
	}
	health := api.Health{Status: api.HealthStatusOk, Version: optional(a.Version), Checks: checks}
	for _, check := range checks {
		if check.Status != api.HealthCheckStatusOk {
			health.Status = api.HealthStatusFailed
			return rest.GetReadiness503JSONResponse(health), nil
		}
	}
	return rest.GetReadiness200JSONResponse(health), nil
}

func (a *API) check(ctx context.Context, name, trouble string, run func(context.Context) error) api.HealthCheck {
	if err := run(ctx); err != nil {
		a.Log.ErrorContext(ctx, "not ready", slog.String("check", name), slog.Any("error", err))
		return api.HealthCheck{Name: name, Status: api.HealthCheckStatusFailed, Detail: &trouble}
	}
	return api.HealthCheck{Name: name, Status: api.HealthCheckStatusOk}
}

func (a *API) checkSchema(ctx context.Context) error {
	migrator, err := a.Store.Migrator()
	if err != nil {
		return err
	}
	database, program, err := migrator.Versions(ctx)
	if err == nil && database != program {
		err = fmt.Errorf("schema version %d, want %d", database, program)
	}
	return err
}

// GetMetrics answers the metrics of this process.
func (a *API) GetMetrics(context.Context, rest.GetMetricsRequestObject) (rest.GetMetricsResponseObject, error) {
	families, err := a.Metrics.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return nil, fmt.Errorf("write metrics: %w", err)
		}
	}
	return rest.GetMetrics200TextResponse(text.String()), nil
}
