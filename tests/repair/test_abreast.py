"""Forwards side by side in bounded memory."""

import torch

from onexn_plugins.repair import abreast
from onexn_plugins.repair.abreast import Abreast
from onexn_plugins.repair.images import Images
from onexn_plugins.repair.surroundings import surroundings
from tests.repair.networks import photos, residual_net


def test_more_images_join_where_maps_are_smaller(monkeypatch):
    net, images = residual_net(), photos(48)
    names = ["0", "3.expand", "3.project", "5", "9"]
    weights = {name: net.get_submodule(name).weight for name in names}
    around = surroundings(net, images[:1], weights)
    monkeypatch.setattr(abreast, "MEMORY", 20 * 3 * around["3.project"].bytes)
    counts, seen = {}, {}
    with Abreast([net], Images([images], 48), [weights], around) as runs:
        while (name := runs.at()) is not None:
            counts[name] = runs.count
            seen[name] = torch.cat([run.call.inputs for run in runs.groups[0]])
            for run in runs.groups[0]:
                run.advance()
    assert counts == {"0": 20, "3.expand": 20, "3.project": 20, "5": 40, "9": 48}
    for name in names:  # each of them as a forward without stops has it
        read = []
        with torch.no_grad():
            handle = net.get_submodule(name).register_forward_pre_hook(
                lambda layer, given, read=read: read.append(given[0]))
            net(images)
            handle.remove()
        distances = torch.cdist(seen[name].flatten(1).double(), read[0].flatten(1).double())
        assert float(distances.min(1).values.max()) < 1e-3
        assert len(set(distances.argmin(1).tolist())) == counts[name], name
