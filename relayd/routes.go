package relayd

import (
	"context"

	"activerelay/api"
	"activerelay/api/policy"
	"activerelay/relayd/internal/policysync"
	"activerelay/relayd/internal/queue"
	"activerelay/relayd/internal/uplink"
)

// routesOf is the queue's router over the policy in force. While no first pass was finished no route can be told: the mail
// that waits might belong to a smarthost.
func routesOf(sync *policysync.Syncer) queue.Router {
	return func(sender, recipient string) queue.Route {
		if !sync.Status().Complete {
			return queue.Route{Unknown: "no policy was received yet"}
		}
		table := sync.Table()
		var domain *policy.Domain // nil for mail that the relay itself sends
		if sender != "" {
			domain, _ = table.Domain(sender)
		}
		switch route, answer := table.Route(domain, recipient); answer {
		case policy.Yes:
			return wayOut(route)
		case policy.No:
			return queue.Route{}
		default:
			return queue.Route{Unknown: "a route that may apply cannot be read"}
		}
	}
}

func wayOut(r policy.Route) queue.Route {
	return queue.Route{
		Host: r.Host, Port: uint16(r.Port), TLS: ruleOf(r.TLS),
		Credentials: queue.Credentials{Username: r.Username, SecretID: r.SecretID, SecretVersion: r.SecretVersion},
	}
}

func ruleOf(r api.TLSRule) queue.TLSRule {
	switch r {
	case api.TLSRuleRequired:
		return queue.TLSRequired
	case api.TLSRuleImplicit:
		return queue.TLSImplicit
	case api.TLSRuleNone:
		return queue.TLSNone
	default:
		return queue.TLSOpportunistic
	}
}

// limitsOf is what the policy in force lets one destination get.
func limitsOf(sync *policysync.Syncer) func(host string) queue.DestinationLimit {
	return func(host string) queue.DestinationLimit {
		platform := sync.Table().Platform()
		if platform == nil {
			return queue.DestinationLimit{}
		}
		limit := platform.DestinationLimit(host)
		return queue.DestinationLimit{Attempts: limit.MaxConnections, PerMinute: limit.MessagesPerMinute}
	}
}

// passwords fetches what a route's login needs and hands the job on. It lies between queue and courier, because a fetch may
// take as long as a call to the control plane, and a router must not wait.
type passwords struct {
	vault   *uplink.Vault
	courier queue.Courier
}

var _ queue.Courier = (*passwords)(nil)

// Attempt implements queue.Courier.
func (p *passwords) Attempt(ctx context.Context, job queue.Job) []queue.Result {
	login := &job.Route.Credentials
	if login.SecretID == "" {
		return p.courier.Attempt(ctx, job)
	}
	password, err := p.vault.Secret(ctx, login.SecretID, login.SecretVersion)
	if err != nil {
		results := make([]queue.Result, len(job.Recipients))
		for i := range results {
			results[i] = queue.Result{Enhanced: "4.7.8", Text: "the password of the smarthost is not at hand", Err: err}
		}
		return results
	}
	login.Password = queue.Secret(password)
	return p.courier.Attempt(ctx, job)
}
