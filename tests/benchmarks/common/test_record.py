from benchmarks.common.record import record


def test_the_record_names_machine_versions_and_commit():
    facts = record("python -m somewhere", packages=("torch", "no-such-package"))
    assert facts["command"] == "python -m somewhere"
    assert facts["versions"].keys() == {"python", "torch", "no-such-package"}
    assert facts["versions"]["no-such-package"] is None
    assert facts["machine"]["cores"] >= 1
    assert facts["machine"]["processor"]
