package admit

import (
	"activerelay/api/policy"
	"activerelay/api/quota"
	"activerelay/api/reason"
)

// Recipient decides whether one more recipient fits into a message that has
// count already.
func Recipient(view View, count int) Verdict {
	var v Verdict
	if limit := view.Table.Platform().MaxRecipients; count >= limit {
		v.note(CheckRecipients, Failed, "")
		return v.refuse(view, reason.TooManyRecipients, reason.Args{Limit: int64(limit)})
	}
	v.Action = Accept
	return v
}

// Size decides about the size of a message, announced by SIZE or counted.
func Size(view View, sizeBytes int64) Verdict {
	var v Verdict
	if limit := view.Table.Platform().MaxMessageBytes; sizeBytes > limit {
		v.note(CheckSize, Failed, "")
		return v.refuse(view, reason.MessageTooLarge, reason.Args{Limit: limit})
	}
	v.Action = Accept
	return v
}

// Quota puts a quota decision into words. Over the limit a mail server is
// deferred and a user refused, unless the platform settings say otherwise.
func Quota(view View, client Client, domain *policy.Domain, d quota.Decision) Verdict {
	v := Verdict{Domain: domain}
	v.Partner, _ = view.Table.Partner(domain.Partner())
	switch d.Outcome {
	case quota.Granted:
		v.note(CheckQuota, Passed, "")
		v.Action = Accept
		return v
	case quota.Reached:
		v.note(CheckQuota, Failed, "")
		return v.refuse(view, reason.QuotaReached, reason.Args{
			Variant: overLimit(view.Table.Platform(), client), Domain: domain.Name,
			Used: d.Used, Limit: d.Limit, Unit: d.Unit.Plural(), ResetsAt: d.ResetsAt,
		})
	}
	v.note(CheckQuota, Unknown, "")
	return v.refuse(view, reason.QuotaUnavailable, reason.Args{Domain: domain.Name})
}

func overLimit(platform *policy.Platform, client Client) reason.Variant {
	refuse := platform.RefuseServersOverLimit
	if client.Authenticated() {
		refuse = platform.RefuseUsersOverLimit
	}
	if refuse {
		return reason.ForUser
	}
	return reason.Ordinary
}
